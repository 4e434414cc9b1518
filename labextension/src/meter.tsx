import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { formatBytes, formatBytesOf, formatPercent } from './format';
import type { IUse } from './wire';

export function MemoryMeter(props: {
  label: string;
  text: string;
  used: number | null;
  total: number;
}): JSX.Element | null {
  const { used, total } = props;
  if (used === null || total <= 0) {
    return null;
  }
  const share = Math.min(1, used / total);
  return (
    <div
      className={`jp-AIStack-meter jp-mod-${fullness(used, total)}`}
      role="meter"
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={total}
      aria-valuenow={Math.min(used, total)}
      aria-valuetext={props.text}
    >
      <span style={{ width: `${share * 100}%` }} />
    </div>
  );
}

/** From this share on there is little left; the watchdog of the server warns there, too. */
const NEARLY_FULL = 0.9;

type Fullness = 'fits' | 'near' | 'over';

function fullness(used: number | null, total: number): Fullness {
  if (used === null || total <= 0 || used < total * NEARLY_FULL) {
    return 'fits';
  }
  return used > total ? 'over' : 'near';
}

/** What a slice uses of its memory, and whether that is (nearly) all of it. */
export function sliceMemoryText(
  use: IUse,
  total: number,
  trans: TranslationBundle
): string {
  const text = memoryText(use, total, trans);
  switch (fullness(use.memory_bytes, total)) {
    case 'near':
      return trans.__('%1, nearly full', text);
    case 'over':
      return trans.__('%1, more than granted', text);
    default:
      return text;
  }
}

export function memoryText(
  use: IUse,
  total: number,
  trans: TranslationBundle
): string {
  return use.memory_bytes === null
    ? trans.__('n/a of %1', formatBytes(total))
    : formatBytesOf(use.memory_bytes, total);
}

export function utilisationText(use: IUse, trans: TranslationBundle): string {
  return formatPercent(use.utilization) ?? trans.__('n/a');
}

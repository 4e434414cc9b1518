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
      className={`jp-AIStack-meter${used > total ? ' jp-mod-over' : ''}`}
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

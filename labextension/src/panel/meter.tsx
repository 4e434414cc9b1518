import * as React from 'react';

import { fullness } from '../text/format';

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

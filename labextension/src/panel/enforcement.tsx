import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { Enforcement, IDevice } from '../wire/types';

/** What a device offers shares of itself, strongest first. */
const LEVELS: readonly Enforcement[] = ['L4', 'L3', 'L2', 'L1', 'L0'];

/** What a device offers beside shares, or instead of them; nothing for an ordinary device. */
export function OffersLine(props: {
  device: IDevice;
  trans: TranslationBundle;
}): JSX.Element | null {
  const { device, trans } = props;
  const parts = [
    !device.is_divisible && trans.__('Granted whole only'),
    device.mig_offers.length > 0 &&
      trans.__('MIG on demand: %1', device.mig_offers.join(', '))
  ].filter(Boolean);
  return parts.length === 0 ? null : (
    <p className="jp-AIStack-figures">{parts.join(' · ')}</p>
  );
}

/** What holds shares of a device to their size, and why nothing stronger does; nothing where that is not known. */
export function EnforcementLine(props: {
  device: IDevice;
  trans: TranslationBundle;
}): JSX.Element | null {
  const { device, trans } = props;
  const reasons = LEVELS.filter(level => device.why_not[level]);
  const line = lineOf(device.level, reasons.length > 0, trans);
  if (line === '') {
    return null;
  }
  return reasons.length === 0 ? (
    <p className="jp-AIStack-figures">{line}</p>
  ) : (
    <details className="jp-AIStack-level">
      <summary title={trans.__('Why no stronger level is reached')}>
        {line}
      </summary>
      <dl>
        {reasons.map(level => (
          <React.Fragment key={level}>
            <dt>{level}</dt>
            <dd>{device.why_not[level]}</dd>
          </React.Fragment>
        ))}
      </dl>
      {device.advice && <p>{device.advice}</p>}
    </details>
  );
}

function lineOf(
  level: Enforcement | null,
  hasReasons: boolean,
  trans: TranslationBundle
): string {
  if (level === null) {
    return hasReasons ? trans.__('No share of it can be granted') : '';
  }
  const text = enforcementText(level, trans);
  return text && trans.__('Shares are %1', text);
}

/** Such as "enforced by the driver: MPS (L1)"; empty where there are no shares to hold. */
export function enforcementText(
  level: Enforcement | null,
  trans: TranslationBundle
): string {
  switch (level) {
    case 'L4':
      return trans.__('enforced by the hardware: MIG (L4)');
    case 'L3':
      return trans.__('enforced by driver and kernel: MPS and cgroup (L3)');
    case 'L2':
      return trans.__('enforced by the driver: MPS namespaces (L2)');
    case 'L1':
      return trans.__('enforced by the driver: MPS (L1)');
    case 'L0':
      return trans.__('advisory: framework caps (L0)');
    default:
      return '';
  }
}

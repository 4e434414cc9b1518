import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

export function SimulatedBadge(props: {
  trans: TranslationBundle;
}): JSX.Element {
  const { trans } = props;
  return (
    <span
      className="jp-AIStack-badge jp-mod-simulated"
      title={trans.__('Nothing real stands behind it')}
    >
      {trans.__('simulated')}
    </span>
  );
}

/** Nothing while the slice is in use. */
export function IdleBadge(props: {
  text: string;
  trans: TranslationBundle;
}): JSX.Element | null {
  const { text, trans } = props;
  return text === '' ? null : (
    <span
      className="jp-AIStack-badge jp-mod-idle"
      title={trans.__('No cell runs and the device does nothing for it')}
    >
      {text}
    </span>
  );
}

export function Warning(props: { text: string }): JSX.Element {
  return (
    <p className="jp-AIStack-warning">
      <span aria-hidden="true">⚠ </span>
      {props.text}
    </p>
  );
}

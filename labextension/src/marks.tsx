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

export function Warning(props: { text: string }): JSX.Element {
  return (
    <p className="jp-AIStack-warning">
      <span aria-hidden="true">⚠ </span>
      {props.text}
    </p>
  );
}

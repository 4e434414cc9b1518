import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { displayStateLabel } from '../text/devicestate';
import type { DisplayState } from '../wire/types';

export function SimulatedBadge(props: {
  trans: TranslationBundle;
}): JSX.Element {
  const { trans } = props;
  return (
    <span
      className="jp-AIStack-badge jp-mod-simulated"
      title={trans.__('There is no real device behind it')}
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

/** The state of a lease's device memory, with what that means as a tooltip. */
export function DisplayStateBadge(props: {
  standing: DisplayState;
  text: string;
  trans: TranslationBundle;
}): JSX.Element {
  const { standing, text, trans } = props;
  return (
    <span
      className={`jp-AIStack-badge jp-AIStack-standing jp-mod-${standing}`}
      title={text}
    >
      {displayStateLabel(standing, trans)}
    </span>
  );
}

/** A problem that must not be overlooked. */
export function Problem(props: { text: string }): JSX.Element {
  return (
    <p className="jp-AIStack-problem">
      <span aria-hidden="true">⚠ </span>
      {props.text}
    </p>
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

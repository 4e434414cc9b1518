import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { conditionText, conditionTitle, errorsOf } from '../text/condition';
import type { ConditionKind, ICondition, ILease } from '../wire/types';
import { Problem, Warning } from './badges';

export interface IConditionsProps {
  lease: ILease;
  trans: TranslationBundle;
}

/** The card shows it among its facts, as why nothing is verified. */
const SHOWN_AS_FACT: ConditionKind = 'NotVerified';

/** A line for each condition of a lease, gravest first. */
export function Conditions(props: IConditionsProps): JSX.Element {
  const { lease, trans } = props;
  const shown = lease.conditions.filter(({ kind }) => kind !== SHOWN_AS_FACT);
  return (
    <>
      {shown.map(condition => (
        <ConditionLine
          key={condition.kind}
          condition={condition}
          trans={trans}
        />
      ))}
    </>
  );
}

function ConditionLine(props: {
  condition: ICondition;
  trans: TranslationBundle;
}): JSX.Element {
  const { condition, trans } = props;
  const text = conditionText(condition, trans);
  switch (condition.severity) {
    case 'error':
      return <Problem text={text} />;
    case 'warning':
      return <Warning text={text} />;
    case 'info':
      return <p className="jp-AIStack-figures">{text}</p>;
  }
}

/** The errors of a lease as badges with their messages, for a row of a list. */
export function ErrorBadges(props: IConditionsProps): JSX.Element {
  const { lease, trans } = props;
  return (
    <>
      {errorsOf(lease).map(({ kind, message }) => (
        <p key={kind} className="jp-AIStack-figures">
          <span className="jp-AIStack-badge jp-mod-unenforced">
            {conditionTitle(kind, trans) || trans.__('failed')}
          </span>{' '}
          {message}
        </p>
      ))}
    </>
  );
}

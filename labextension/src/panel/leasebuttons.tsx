import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IPanelActions } from '../commands/panelactions';
import { isSuspendable, type SuspendableLease } from '../text/devicestate';
import { canExtend, extendText } from '../text/notice';
import {
  actionCaption,
  actionLabel,
  whyNotAllowed,
  type SuspendAction
} from '../text/suspendaction';
import type { IHost, ILease } from '../wire/types';

export interface ILeaseButtonsProps {
  actions: IPanelActions;
  /** By how much the Extend button moves the end. */
  extendSeconds: number;
  host: IHost;
  lease: ILease;
  /** The data is fresh enough to act upon. */
  online: boolean;
  trans: TranslationBundle;
}

/** What its user may do with the slice now. */
export function LeaseButtons(props: ILeaseButtonsProps): JSX.Element {
  const { actions, lease, online, trans } = props;
  return (
    <div className="jp-AIStack-buttons">
      {isSuspendable(lease) && <SuspendButtons {...props} lease={lease} />}
      <button
        className={`jp-AIStack-button${lease.notice?.kind === 'idle' ? ' jp-mod-accept' : ''}`}
        disabled={!online || !canExtend(lease)}
        title={extendText(lease, props.extendSeconds, trans)}
        onClick={() => actions.extend(lease.id)}
      >
        {trans.__('Extend')}
      </button>
      <button
        className="jp-AIStack-button jp-mod-warn"
        disabled={!online}
        title={trans.__('Give the slice back')}
        onClick={() => actions.release(lease.id)}
      >
        {trans.__('Release')}
      </button>
    </div>
  );
}

/** The action of each pair that makes sense now; after a loss of its state, a restart instead. */
function SuspendButtons(
  props: ILeaseButtonsProps & { lease: SuspendableLease }
): JSX.Element {
  const { actions, lease, online, trans } = props;
  const { asked, is_kept, phase } = lease.residence;
  if (phase === 'lost') {
    return (
      <button
        className="jp-AIStack-button jp-mod-accept"
        disabled={!online}
        title={trans.__('The slice stays; what was on its device is gone')}
        onClick={() => actions.restart(lease.holder.id)}
      >
        {trans.__('Restart Kernel…')}
      </button>
    );
  }
  const isHere = phase === 'resident' && asked !== 'suspend';
  return (
    <>
      <SuspendButton {...props} action={isHere ? 'suspend' : 'resume'} />
      <SuspendButton {...props} action={is_kept ? 'unpin' : 'pin'} />
    </>
  );
}

function SuspendButton(
  props: ILeaseButtonsProps & { action: SuspendAction }
): JSX.Element {
  const { actions, host, lease, online, trans, action } = props;
  const why = whyNotAllowed(action, lease, host, trans);
  return (
    <button
      className="jp-AIStack-button"
      disabled={!online || why !== ''}
      title={why || actionCaption(action, trans)}
      onClick={() => actions.applySuspendAction(lease.id, action)}
    >
      {actionLabel(action, trans)}
    </button>
  );
}

import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import { hostMemoryText, type SuspendableLease } from '../text/devicestate';
import type { SuspendAction } from '../text/suspendaction';
import type { ISuspendNews } from './suspendwatcher';
import { shortName, ToastList } from './toastlist';

export interface ISuspendToastsOptions {
  applySuspendAction: (leaseId: string, action: SuspendAction) => void;
  /** Restarts a kernel, after asking; null when no open notebook has it. */
  restartOf: (kernelId: string) => (() => void) | null;
  /** Shows the panel. */
  open: () => void;
  /** Whether to explain to this user what a suspended slice is; asked once per suspend. */
  shouldExplain: () => boolean;
  /** It has been explained. */
  explained: () => void;
  trans: TranslationBundle;
}

/** Notifies of slices that are suspended, resumed or lost: each pops up once, and then only in the list of notifications. */
export class SuspendToasts implements ISuspendNews {
  constructor(private readonly _options: ISuspendToastsOptions) {}

  suspended(lease: SuspendableLease, isNews: boolean): void {
    const { explained, shouldExplain } = this._options;
    if (shouldExplain()) {
      explained();
      this._explain(lease);
    } else if (isNews) {
      this._showSuspended(lease);
    }
  }

  resumed(lease: SuspendableLease, isNews: boolean): void {
    const { trans } = this._options;
    this.over(lease.id);
    if (isNews) {
      this._toasts.show(lease.id, {
        type: 'success',
        message: trans.__('%1 is back on its device.', shortName(lease)),
        autoClose: this._popUpTime(`resumed ${lease.id}`, 5_000)
      });
    }
  }

  lost(lease: SuspendableLease): void {
    const { trans } = this._options;
    this.over(lease.id);
    this._toasts.show(lease.id, {
      type: 'error',
      message: trans.__(
        '%1: what it kept on its device is lost. Restart the kernel to go on.',
        shortName(lease)
      ),
      autoClose: false,
      actions: this._lossActions(lease)
    });
  }

  over(leaseId: string): void {
    this._toasts.dismiss(leaseId);
    this._closeExplanation(leaseId);
  }

  private _showSuspended(lease: SuspendableLease): void {
    const { trans } = this._options;
    this.over(lease.id);
    this._toasts.show(lease.id, {
      type: 'info',
      message: trans.__(
        '%1 is suspended: %2; it comes back when a cell needs it.',
        shortName(lease),
        hostMemoryText(lease, trans)
      ),
      autoClose: this._popUpTime(`suspended ${lease.id}`, 10_000),
      actions: [this._action('resume', lease)]
    });
  }

  /** Stays to be read, however soon the slice is back. */
  private _explain(lease: SuspendableLease): void {
    const { trans } = this._options;
    const message = trans.__(
      '%1 is suspended: its GPU memory moved to the host to free capacity. Nothing is lost; it comes back when a cell needs it.',
      shortName(lease)
    );
    const actions = [this._action('resume', lease), this._action('pin', lease)];
    const id = Notification.info(message, { autoClose: false, actions });
    this._explanation = { id, leaseId: lease.id };
  }

  /** Takes the buttons from the explanation: the lease is back or gone. */
  private _closeExplanation(leaseId: string): void {
    if (this._explanation?.leaseId === leaseId) {
      Notification.update({ id: this._explanation.id, actions: [] });
      this._explanation = null;
    }
  }

  /** For how long to pop up: `milliseconds` the first time, and then not at all. */
  private _popUpTime(key: string, milliseconds: number): number {
    const isFirst = !this._notified.has(key);
    this._notified.add(key);
    return isFirst ? milliseconds : 0;
  }

  private _action(
    action: SuspendAction,
    lease: SuspendableLease
  ): Notification.IAction {
    const { applySuspendAction, trans } = this._options;
    return {
      label:
        action === 'pin' ? trans.__('Never suspend it') : trans.__('Resume'),
      callback: () => applySuspendAction(lease.id, action)
    };
  }

  private _lossActions(lease: SuspendableLease): Notification.IAction[] {
    const { open, restartOf, trans } = this._options;
    const show = { label: trans.__('Show'), callback: () => open() };
    const restart = restartOf(lease.holder.id);
    return restart
      ? [
          { label: trans.__('Restart kernel…'), callback: () => restart() },
          show
        ]
      : [show];
  }

  private _explanation: { id: string; leaseId: string } | null = null;
  private readonly _notified = new Set<string>();
  private readonly _toasts = new ToastList();
}

import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import { hostMemoryText, type SuspendableLease } from '../text/devicestate';
import { deviceTitle, holderName, truncated } from '../text/format';
import type { SuspendAction } from '../text/suspendaction';
import type { IDevice, ILease } from '../wire/types';
import type { ISuspendNews } from './suspendwatcher';

export interface ISuspendToastsOptions {
  applySuspendAction: (leaseId: string, action: SuspendAction) => void;
  /** Restarts a kernel, after asking; null when no open notebook has it. */
  restartOf: (kernelId: string) => (() => void) | null;
  /** Shows where slices are dealt with. */
  open: () => void;
  /** Whether this user still has to be told what it means to be suspended; asked once per suspend. */
  shouldExplain: () => boolean;
  /** Now they have been. */
  explained: () => void;
  trans: TranslationBundle;
}

/** Tells what must be known of slices: each thing once, and again only in the list of notifications. */
export class SuspendToasts implements ISuspendNews {
  constructor(private readonly _options: ISuspendToastsOptions) {}

  suspended(lease: SuspendableLease, isNews: boolean): void {
    const { explained, shouldExplain, trans } = this._options;
    const actions = [this._action('resume', lease)];
    if (shouldExplain()) {
      explained();
      this._explain(lease, [...actions, this._action('pin', lease)]);
    } else if (isNews) {
      const pause = this._popUpTime(`suspended ${lease.id}`, 10_000);
      const message = trans.__(
        '%1 is suspended: %2; it comes back when a cell needs it.',
        nameOf(lease),
        hostMemoryText(lease, trans)
      );
      this._show(lease.id, 'info', message, pause, actions);
    }
  }

  resumed(lease: SuspendableLease, isNews: boolean): void {
    const { trans } = this._options;
    this.over(lease.id);
    if (isNews) {
      const message = trans.__('%1 is back on its device.', nameOf(lease));
      const pause = this._popUpTime(`resumed ${lease.id}`, 5_000);
      this._show(lease.id, 'success', message, pause);
    }
  }

  lost(lease: SuspendableLease): void {
    const { restartOf, trans } = this._options;
    const restart = restartOf(lease.holder.id);
    const message = trans.__(
      '%1: what it kept on its device is lost. Restart the kernel to go on.',
      nameOf(lease)
    );
    this._show(lease.id, 'error', message, false, [
      ...(restart
        ? [{ label: trans.__('Restart kernel…'), callback: () => restart() }]
        : []),
      this._showAction()
    ]);
  }

  unenforced(lease: ILease): void {
    const { trans } = this._options;
    const message = trans.__(
      '%1: its slice is not enforced, so others may get in its way. The panel says why; a restart may help.',
      nameOf(lease)
    );
    this._show(`${lease.id} size`, 'warning', message, false, [
      this._showAction()
    ]);
  }

  filled(lease: ILease): void {
    const message = truncated(capital(lease.note), LETTERS);
    this._show(`${lease.id} memory`, 'warning', message, 15_000, [
      this._showAction()
    ]);
  }

  deviceFailed(lease: ILease, device: IDevice): void {
    const { trans } = this._options;
    const title = deviceTitle(device, trans);
    const message = trans.__(
      '%1 on %2: %3',
      nameOf(lease),
      title,
      device.problem
    );
    this._show(
      `${lease.id} ${device.id}`,
      'error',
      truncated(message, LETTERS),
      false,
      [this._showAction()]
    );
  }

  over(leaseId: string): void {
    const shown = this._shown.get(leaseId);
    if (shown !== undefined) {
      this._shown.delete(leaseId);
      Notification.dismiss(shown);
    }
    this._closeExplanation(leaseId);
  }

  /** Stays to be read, however soon the slice is back. */
  private _explain(
    lease: SuspendableLease,
    actions: Notification.IAction[]
  ): void {
    const message = explanation(lease, this._options.trans);
    const id = Notification.info(message, { autoClose: false, actions });
    this._explanation = { id, leaseId: lease.id };
  }

  /** What is explained can no longer be acted upon once that lease is back or gone. */
  private _closeExplanation(leaseId: string): void {
    if (this._explanation?.leaseId === leaseId) {
      Notification.update({ id: this._explanation.id, actions: [] });
      this._explanation = null;
    }
  }

  /** In place of what was said before under `key`. */
  private _show(
    key: string,
    type: Notification.TypeOptions,
    message: string,
    autoClose: number | false,
    actions: Notification.IAction[] = []
  ): void {
    this.over(key);
    const options = { autoClose, actions };
    this._shown.set(key, Notification.emit(message, type, options));
  }

  /** How long to pop up: so long the first time, and then not at all. */
  private _popUpTime(key: string, pause: number): number {
    const isFirst = !this._notified.has(key);
    this._notified.add(key);
    return isFirst ? pause : 0;
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

  private _showAction(): Notification.IAction {
    const { open, trans } = this._options;
    return { label: trans.__('Show'), callback: () => open() };
  }

  private _explanation: { id: string; leaseId: string } | null = null;
  private readonly _shown = new Map<string, string>();
  private readonly _notified = new Set<string>();
}

/** What it means to be suspended, in the letters that a notification shows. */
function explanation(
  lease: SuspendableLease,
  trans: TranslationBundle
): string {
  return trans.__(
    '%1 is suspended: its GPU memory moved to the host to free capacity. Nothing is lost; it comes back when a cell needs it.',
    nameOf(lease)
  );
}

/** JupyterLab cuts a notification off after so many. */
const LETTERS = 140;
const NAME_LETTERS = 20;

function nameOf({ holder }: ILease): string {
  return truncated(holderName(holder), NAME_LETTERS);
}

function capital(sentence: string): string {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}

import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import { formatDuration } from '../text/format';
import {
  canExtend,
  endedLine,
  noticeLine,
  roundedTimeLeft
} from '../text/notice';
import type { ILease } from '../wire/types';
import type { INoticeNews, NoticedLease } from './noticewatcher';
import { shortName } from './toastlist';
import type { ILeaseNews } from './watcher';

export interface INewsToastsOptions {
  extend: (leaseId: string) => void;
  /** Saves the notebook of a kernel; null where there is none to save. */
  saveOf: (kernelId: string) => (() => void) | null;
  trans: TranslationBundle;
}

/** Puts news where JupyterLab shows it: as notifications. */
export class NewsToasts implements ILeaseNews, INoticeNews {
  constructor(private readonly _options: INewsToastsOptions) {}

  granted({ spec }: ILease): void {
    const { trans } = this._options;
    Notification.success(trans.__('Your slice was granted: %1', spec), {
      autoClose: 10_000
    });
  }

  ending({ id, spec }: ILease, left: number): void {
    const { trans } = this._options;
    Notification.warning(
      trans.__('Your slice %1 ends in %2', spec, formatDuration(left)),
      { autoClose: false, actions: [this._extendAction(id)] }
    );
  }

  noticePending(key: string, lease: NoticedLease, now: number): void {
    const message = this._textOf(lease, now);
    const shown = this._shown.get(key);
    if (!shown) {
      const actions = this._actionsFor(lease);
      const id = Notification.warning(message, { autoClose: false, actions });
      this._shown.set(key, { id, message });
    } else if (shown.message !== message) {
      shown.message = message;
      Notification.update({ id: shown.id, message });
    }
  }

  noticeOver(key: string, lease: NoticedLease, hasEnded: boolean): void {
    const { trans } = this._options;
    const shown = this._shown.get(key);
    this._shown.delete(key);
    if (shown) {
      Notification.dismiss(shown.id);
    }
    if (hasEnded) {
      const message = endedLine(lease, lease.notice, shortName(lease), trans);
      Notification.info(message, { autoClose: false });
    }
  }

  private _textOf(lease: NoticedLease, now: number): string {
    const { trans } = this._options;
    const left = roundedTimeLeft(lease.notice, now, trans);
    return noticeLine(lease, lease.notice, shortName(lease), left, trans);
  }

  private _actionsFor(lease: NoticedLease): Notification.IAction[] {
    const { holder } = lease;
    const kernelId = holder.kind === 'kernel' ? holder.id : holder.parent;
    const save = this._options.saveOf(kernelId);
    return [
      ...(canExtend(lease) ? [this._extendAction(lease.id)] : []),
      ...(save ? [this._saveAction(save)] : [])
    ];
  }

  private _extendAction(leaseId: string): Notification.IAction {
    const { extend, trans } = this._options;
    return {
      label: trans.__('Extend'),
      displayType: 'accent',
      callback: () => extend(leaseId)
    };
  }

  private _saveAction(save: () => void): Notification.IAction {
    return {
      label: this._options.trans.__('Save notebook'),
      callback: event => {
        event.preventDefault(); // the slice still ends: the notification stays
        save();
      }
    };
  }

  private readonly _shown = new Map<string, { id: string; message: string }>();
}

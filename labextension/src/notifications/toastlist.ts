import { Notification } from '@jupyterlab/apputils';

import { holderName, truncated } from '../text/format';
import type { ILease } from '../wire/types';

/** JupyterLab cuts the message of a notification off after so many letters. */
export const MESSAGE_LETTERS = 140;

/** So many leave room for a message that matters to its end. */
const NAME_LETTERS = 20;

/** The name of a lease's holder, short enough for a notification. */
export function shortName({ holder }: ILease): string {
  return truncated(holderName(holder), NAME_LETTERS);
}

/** A notification that is to be shown. */
export interface IToast {
  type: Notification.TypeOptions;
  message: string;
  /** For how many milliseconds to pop up; 0 for only in the list, false for until it is closed. */
  autoClose: number | false;
  actions?: Notification.IAction[];
}

/** Notifications by key: a new one replaces that of the same key. */
export class ToastList {
  show(key: string, toast: IToast): void {
    this.dismiss(key);
    const { actions = [], autoClose, message, type } = toast;
    this._ids.set(
      key,
      Notification.emit(message, type, { actions, autoClose })
    );
  }

  dismiss(key: string): void {
    const id = this._ids.get(key);
    if (id !== undefined) {
      this._ids.delete(key);
      Notification.dismiss(id);
    }
  }

  private readonly _ids = new Map<string, string>();
}

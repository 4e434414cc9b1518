import type { TranslationBundle } from '@jupyterlab/translation';

import { conditionText } from '../text/condition';
import { deviceTitle, truncated } from '../text/format';
import type { ICondition, IDevice, ILease } from '../wire/types';
import type { IConditionNews } from './conditionwatcher';
import {
  MESSAGE_LETTERS,
  shortName,
  ToastList,
  type IToast
} from './toastlist';

export interface IConditionToastsOptions {
  /** Shows the panel. */
  open: () => void;
  trans: TranslationBundle;
}

/** Notifies of conditions that a user must know of. */
export class ConditionToasts implements IConditionNews {
  constructor(private readonly _options: IConditionToastsOptions) {}

  raised(lease: ILease, condition: ICondition): void {
    this._show(
      `${lease.id} ${condition.kind}`,
      this._toastOf(lease, condition)
    );
  }

  deviceFailed(lease: ILease, device: IDevice): void {
    const { trans } = this._options;
    const title = deviceTitle(device, trans);
    const name = shortName(lease);
    this._show(`${lease.id} ${device.id}`, {
      type: 'error',
      message: trans.__('%1 on %2: %3', name, title, device.problem),
      autoClose: false
    });
  }

  private _toastOf(lease: ILease, condition: ICondition): IToast {
    const { trans } = this._options;
    switch (condition.kind) {
      case 'NotEnforced':
        return {
          type: 'warning',
          message: trans.__(
            '%1: its slice is not enforced, so others may get in its way. The panel says why; a restart may help.',
            shortName(lease)
          ),
          autoClose: false
        };
      case 'MemoryExceeded':
      case 'LimitLowered':
      case 'MemoryPressure':
        return {
          type: 'warning',
          message: conditionText(condition, trans),
          autoClose: 15_000
        };
      default:
        return {
          type: condition.severity,
          message: trans.__('%1: %2', shortName(lease), condition.message),
          autoClose: false
        };
    }
  }

  private _show(key: string, toast: IToast): void {
    const { open, trans } = this._options;
    const action = { label: trans.__('Show'), callback: () => open() };
    this._toasts.show(key, {
      ...toast,
      message: truncated(toast.message, MESSAGE_LETTERS),
      actions: [action]
    });
  }

  private readonly _toasts = new ToastList();
}

import type { TranslationBundle } from '@jupyterlab/translation';

import { deviceTitle, truncated } from '../text/format';
import { strayName } from '../text/stray';
import type { IDevice, IStray } from '../wire/types';
import type { IStrayNews } from './straywatcher';
import { MESSAGE_LETTERS, ToastList } from './toastlist';

const NAME_LETTERS = 50;

export interface IStrayToastsOptions {
  /** Shows the panel. */
  open: () => void;
  trans: TranslationBundle;
}

/** Notifies a user of own processes that use a device without a lease. */
export class StrayToasts implements IStrayNews {
  constructor(private readonly _options: IStrayToastsOptions) {}

  strayed(stray: IStray, device: IDevice | undefined): void {
    const { open, trans } = this._options;
    const name = truncated(strayName(stray, trans), NAME_LETTERS);
    const where = device ? deviceTitle(device, trans) : stray.device_id;
    const message =
      stray.ends_at === null
        ? trans.__('%1 uses %2 without a lease: ask for a slice', name, where)
        : trans.__(
            '%1 uses %2 without a lease, and is ended soon',
            name,
            where
          );
    this._toasts.show(`${stray.device_id} ${stray.pid}`, {
      type: 'warning',
      message: truncated(message, MESSAGE_LETTERS),
      autoClose: false,
      actions: [{ label: trans.__('Show'), callback: () => open() }]
    });
  }

  private readonly _toasts = new ToastList();
}

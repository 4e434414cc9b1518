import { Disposable } from '../app/disposable';
import type { ILeaseManager } from '../tokens';
import type { IDevice, IStray } from '../wire/types';

/** What a user must know of the user's own processes. */
export interface IStrayNews {
  /** A process uses a device without a lease, or it has been decided that it will be ended. */
  strayed: (stray: IStray, device: IDevice | undefined) => void;
}

/** Watches for processes of this user that use a device without a lease. */
export class StrayWatcher extends Disposable {
  constructor(
    private readonly _manager: ILeaseManager,
    private readonly _news: IStrayNews
  ) {
    super();
    _manager.changed.connect(this._update, this);
  }

  private _update(): void {
    const host = this._manager.host;
    if (!host) {
      return;
    }
    const current = new Set<string>();
    for (const stray of host.strays.filter(each => each.is_own)) {
      const isToEnd = stray.ends_at !== null;
      const key = `${stray.device_id} ${stray.pid} ${isToEnd}`;
      current.add(key);
      if (!this._before.has(key)) {
        const device = host.devices.find(({ id }) => id === stray.device_id);
        this._news.strayed(stray, device);
      }
    }
    this._before = current;
  }

  private _before = new Set<string>();
}

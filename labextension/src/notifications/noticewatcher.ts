import { Disposable } from '../app/disposable';
import { ownLeases } from '../text/ownership';
import type { ILeaseManager } from '../tokens';
import type { ILease, INotice } from '../wire/types';

/** A lease that will be reclaimed or preempted. */
export type NoticedLease = ILease & { notice: INotice };

/** What becomes of notices; `key` identifies the notice. */
export interface INoticeNews {
  /** It was given, or time has passed since. */
  noticePending: (key: string, lease: NoticedLease, now: number) => void;
  /** It is over; `hasEnded` when the lease ended by it, rather than being kept or released in time. */
  noticeOver: (key: string, lease: NoticedLease, hasEnded: boolean) => void;
}

/** A lease that ends this long before its time may still have ended by its notice: clocks and snapshots are not exact. */
const SLACK_SECONDS = 2;

/** Watches the leases of all kernels of this server, for the idle notebook is one in the background. */
export class NoticeWatcher extends Disposable {
  constructor(
    private readonly _manager: ILeaseManager,
    private readonly _kernelIds: () => readonly string[],
    private readonly _news: INoticeNews
  ) {
    super();
    _manager.changed.connect(this._update, this);
    this._timer = setInterval(() => this._tick(), 1000);
  }

  protected onDispose(): void {
    clearInterval(this._timer);
  }

  private _update(): void {
    const seen = new Map(
      this._leasesWithNotice().map(lease => [keyOf(lease), lease])
    );
    for (const [key, lease] of this._pending) {
      if (!seen.has(key)) {
        this._news.noticeOver(key, lease, this._hasEnded(lease));
      }
    }
    this._pending = seen;
    this._tick();
  }

  private _tick(): void {
    const now = this._manager.now();
    this._pending.forEach((lease, key) =>
      this._news.noticePending(key, lease, now)
    );
  }

  private _leasesWithNotice(): NoticedLease[] {
    return ownLeases(this._manager.leases, this._kernelIds()).filter(hasNotice);
  }

  private _hasEnded({ id, notice }: NoticedLease): boolean {
    const lives = this._manager.leases.some(
      lease => lease.id === id && lease.state !== 'ended'
    );
    return !lives && this._manager.now() >= notice.ends_at - SLACK_SECONDS;
  }

  private _pending = new Map<string, NoticedLease>();
  private readonly _timer: ReturnType<typeof setInterval>;
}

function hasNotice(lease: ILease): lease is NoticedLease {
  return lease.notice !== null;
}

/** A later notice about the same lease has a key of its own. */
function keyOf({ id, notice }: NoticedLease): string {
  return `${id}@${notice.at}`;
}

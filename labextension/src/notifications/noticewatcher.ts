import { Disposable } from '../app/disposable';
import { isOwn } from '../text/ownership';
import type { ILeaseManager } from '../tokens';
import type { ILease, INotice } from '../wire/types';

/** A lease that will be taken back. */
export type NoticedLease = ILease & { notice: INotice };

/** What becomes of notices; `key` is the same for all that is told of one. */
export interface INoticeNews {
  /** It was given, or time has passed since. */
  pending: (key: string, lease: NoticedLease, now: number) => void;
  /** It is over: the lease was taken back, or else was kept or released in time. */
  over: (key: string, lease: NoticedLease, wasTaken: boolean) => void;
}

/** A lease that goes this long before its time may still have been taken: clocks and snapshots are not exact. */
const SLACK_SECONDS = 2;

/** Watches the leases of all kernels of this server, for a notebook in the background is the one that nobody uses. */
export class NoticeWatcher extends Disposable {
  constructor(
    private readonly _manager: ILeaseManager,
    private readonly _kernelIds: () => readonly string[],
    private readonly _news: INoticeNews
  ) {
    super();
    _manager.changed.connect(this._look, this);
    this._timer = setInterval(() => this._count(), 1000);
  }

  protected onDispose(): void {
    clearInterval(this._timer);
  }

  private _look(): void {
    const seen = new Map(this._noticed().map(lease => [keyOf(lease), lease]));
    for (const [key, lease] of this._pending) {
      if (!seen.has(key)) {
        this._news.over(key, lease, this._wasTaken(lease));
      }
    }
    this._pending = seen;
    this._count();
  }

  private _count(): void {
    const now = this._manager.now();
    this._pending.forEach((lease, key) => this._news.pending(key, lease, now));
  }

  private _noticed(): NoticedLease[] {
    const kernels = this._kernelIds();
    return this._manager.leases
      .filter(isNoticed)
      .filter(({ holder }) => kernels.some(kernel => isOwn(holder, kernel)));
  }

  private _wasTaken({ id, notice }: NoticedLease): boolean {
    const lives = this._manager.leases.some(
      lease => lease.id === id && lease.state !== 'ended'
    );
    return !lives && this._manager.now() >= notice.ends_at - SLACK_SECONDS;
  }

  private _pending = new Map<string, NoticedLease>();
  private readonly _timer: ReturnType<typeof setInterval>;
}

function isNoticed(lease: ILease): lease is NoticedLease {
  return lease.notice !== null && lease.state !== 'ended';
}

/** A lease that is told again later is told anew. */
function keyOf({ id, notice }: NoticedLease): string {
  return `${id}@${notice.at}`;
}

import type { LeaseManager } from '../../api/manager';
import { NoticeWatcher } from '../../notifications/noticewatcher';
import type { ISnapshot } from '../../wire/types';
import {
  FakeServer,
  FakeSocket,
  KERNEL,
  managerOf,
  PARENT_KERNEL,
  sampleSnapshot
} from '../fakes';

let kernels: string[];
let manager: LeaseManager;
let news: string[];
let watcher: NoticeWatcher;

beforeEach(() => {
  vi.useFakeTimers();
  manager = managerOf(new FakeServer());
  kernels = [KERNEL];
  news = [];
  watcher = new NoticeWatcher(manager, () => kernels, {
    noticePending: (key, lease, now) =>
      tell(`${key} ${Math.round(lease.notice.ends_at - now)} s left`),
    noticeOver: (key, _, hasEnded) =>
      tell(`${key} ${hasEnded ? 'ended' : 'kept'}`)
  });
});

afterEach(() => {
  watcher.dispose();
  manager.dispose();
  vi.useRealTimers();
});

/** A snapshot may make for more than one signal. */
function tell(text: string): void {
  if (news[news.length - 1] !== text) {
    news.push(text);
  }
}

function push(change: (snapshot: ISnapshot) => void = () => undefined): void {
  const snapshot = sampleSnapshot();
  const { at } = snapshot.usage;
  const notice = { kind: 'idle', at: 7, ends_at: at + 10, request_id: '' };
  Object.assign(snapshot.leases[0], { notice });
  change(snapshot);
  FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
}

const extend = ({ leases }: ISnapshot): unknown => (leases[0].notice = null);
const remove = ({ leases }: ISnapshot): unknown => leases.shift();

it('tells of a notice, and again as time passes', () => {
  push();
  expect(news).toEqual(['l-tour@7 10 s left']);
  vi.advanceTimersByTime(2000);
  expect(news.slice(1)).toEqual(['l-tour@7 9 s left', 'l-tour@7 8 s left']);
});

it('tells when it was extended, and stops counting', () => {
  push();
  push(extend);
  vi.advanceTimersByTime(5000);
  expect(news.slice(1)).toEqual(['l-tour@7 kept']);
});

it('tells when the slice was released in time', () => {
  push();
  push(remove);
  expect(news[news.length - 1]).toBe('l-tour@7 kept');
});

it('tells when the slice has ended by it', () => {
  push();
  vi.advanceTimersByTime(10_000);
  push(({ leases, usage }) => {
    leases.shift();
    usage.at += 10;
  });
  expect(news[news.length - 1]).toBe('l-tour@7 ended');
});

it('tells a second notice anew', () => {
  push();
  push(extend);
  push(({ leases }) => (leases[0].notice = { ...leases[0].notice!, at: 8 }));
  expect(news.slice(1)).toEqual(['l-tour@7 kept', 'l-tour@8 10 s left']);
});

it('leaves out what other servers hold, but not what a kernel has started', () => {
  kernels = [];
  push();
  expect(news).toEqual([]);
  kernels = [PARENT_KERNEL];
  push();
  expect(news).toEqual(['l-worker@1790002220 60 s left']);
});

it('leaves nothing behind when disposed', () => {
  push();
  watcher.dispose();
  news = [];
  push(extend);
  vi.advanceTimersByTime(5000);
  expect(news).toEqual([]);
});

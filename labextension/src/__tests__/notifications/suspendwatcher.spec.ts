import type { LeaseManager } from '../../api/manager';
import { SuspendWatcher } from '../../notifications/suspendwatcher';
import type { IDeviceState } from '../../wire/types';
import {
  FakeServer,
  FakeSocket,
  KERNEL,
  LOST,
  managerOf,
  sampleSnapshot,
  suspendedSnapshot,
  WARM
} from '../fakes';

let kernels: string[];
let manager: LeaseManager;
let news: string[];
let watcher: SuspendWatcher;

beforeEach(() => {
  manager = managerOf(new FakeServer());
  kernels = [KERNEL];
  news = [];
  watcher = new SuspendWatcher(manager, () => kernels, {
    suspended: ({ id }, isNews) => tell(`${id} suspended ${isNews}`),
    resumed: ({ id }, isNews) => tell(`${id} resumed ${isNews}`),
    lost: ({ id }) => tell(`${id} lost`),
    over: id => tell(`${id} over`)
  });
});

afterEach(() => {
  watcher.dispose();
  manager.dispose();
});

function tell(text: string): void {
  news.push(text);
}

function push(changes: Partial<IDeviceState>): void {
  FakeSocket.latest.show(suspendedSnapshot(changes));
}

it('tells of a suspend and a return, each once', () => {
  push(WARM);
  push({ phase: 'parking', standing: 'warm' });
  expect(news).toEqual([]);
  push({});
  push({});
  push({ phase: 'restoring' });
  push(WARM);
  push(WARM);
  expect(news).toEqual(['l-tour suspended true', 'l-tour resumed true']);
});

it('calls no news what was so before, or what its user has asked for', () => {
  push({});
  expect(news).toEqual(['l-tour suspended false']);
  push({ asked: 'resume', wanted_at: 1 });
  push({ phase: 'restoring' });
  push(WARM);
  push({ ...WARM, asked: 'suspend' });
  push({ phase: 'parking', standing: 'warm' });
  push({});
  expect(news.slice(1)).toEqual([
    'l-tour resumed false',
    'l-tour suspended false'
  ]);
});

it('does not call back what never left', () => {
  push(WARM);
  push({ phase: 'parking', standing: 'warm' });
  push({ ...WARM, failures: 1 });
  expect(news).toEqual([]);
});

it('does not call gone what failed to come back', () => {
  push(WARM);
  push({});
  push({ phase: 'restoring' });
  push({});
  expect(news).toEqual(['l-tour suspended true']);
});

it('tells of a loss once, and when it is over', () => {
  push(LOST);
  push(LOST);
  push(WARM);
  expect(news).toEqual(['l-tour lost', 'l-tour over']);
});

it('has nothing to bring back for a kernel that was restarted meanwhile', () => {
  push(WARM);
  push({});
  push({ state_bytes: 0 });
  push({ phase: 'restoring', state_bytes: 0 });
  push(WARM);
  expect(news).toEqual(['l-tour suspended true', 'l-tour over']);
});

it('takes a loss for over once the kernel was restarted, though it has no room yet', () => {
  push(LOST);
  push({ state_bytes: 0 });
  expect(news).toEqual(['l-tour lost', 'l-tour over']);
});

it('tells that it is over when the slice is given back', () => {
  push({});
  const snapshot = sampleSnapshot();
  snapshot.leases.shift();
  FakeSocket.latest.show(snapshot);
  expect(news.slice(1)).toEqual(['l-tour over']);
});

it('leaves out what other servers hold', () => {
  kernels = [];
  push(LOST);
  expect(news).toEqual([]);
});

it('is silent once disposed', () => {
  watcher.dispose();
  push(LOST);
  expect(news).toEqual([]);
});

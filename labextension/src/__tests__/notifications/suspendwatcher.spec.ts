import type { LeaseManager } from '../../api/manager';
import { SuspendWatcher } from '../../notifications/suspendwatcher';
import type { ILease, IDeviceState, ISnapshot } from '../../wire/types';
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
    unenforced: ({ id, note }) => tell(`${id} unenforced ${note}`),
    filled: ({ note }) => tell(note),
    deviceFailed: ({ id }, device) => tell(`${id} ${device.problem}`),
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

function pushLease(changes: Partial<ILease>): void {
  const snapshot = sampleSnapshot();
  Object.assign(snapshot.leases[0], changes);
  FakeSocket.latest.show(snapshot);
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

it('tells once per reason that a slice is not enforced', () => {
  pushLease({ verified: false, note: 'not enforced: a' });
  pushLease({ verified: false, note: 'not enforced: a' });
  pushLease({ verified: false, note: 'not enforced: b' });
  expect(news).toEqual([
    'l-tour unenforced not enforced: a',
    'l-tour unenforced not enforced: b'
  ]);
});

it('tells once of each step of memory, until it is calm again', () => {
  const notes = [
    'near its memory: 18 of 20 GiB',
    'near its memory: 19 of 20 GiB',
    'over its memory: 21 of 20 GiB',
    'near its memory: 19 of 20 GiB',
    '',
    'near its memory: 18.5 of 20 GiB',
    'its memory cannot be measured now'
  ];
  notes.forEach(note => pushLease({ note }));
  expect(news).toEqual([notes[0], notes[2], notes[5]]);
});

it('tells whoever is on a device that fails, once', () => {
  const snapshot: ISnapshot = sampleSnapshot();
  snapshot.host.devices[0].problem = 'client 7 has faulted';
  FakeSocket.latest.show(snapshot);
  FakeSocket.latest.show(snapshot);
  expect(news).toEqual(['l-tour client 7 has faulted']);
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

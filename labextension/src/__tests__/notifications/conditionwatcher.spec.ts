import type { LeaseManager } from '../../api/manager';
import { ConditionWatcher } from '../../notifications/conditionwatcher';
import type { ICondition, ISnapshot } from '../../wire/types';
import {
  conditionSample,
  FakeServer,
  FakeSocket,
  KERNEL,
  managerOf,
  sampleSnapshot
} from '../fakes';

let kernels: string[];
let manager: LeaseManager;
let news: string[];
let watcher: ConditionWatcher;

beforeEach(() => {
  manager = managerOf(new FakeServer());
  kernels = [KERNEL];
  news = [];
  watcher = new ConditionWatcher(manager, () => kernels, {
    raised: ({ id }, { kind, message }) =>
      news.push(`${id} ${kind}: ${message}`),
    deviceFailed: ({ id }, device) => news.push(`${id} ${device.problem}`)
  });
});

afterEach(() => {
  watcher.dispose();
  manager.dispose();
});

function push(...conditions: ICondition[]): void {
  const snapshot = sampleSnapshot();
  snapshot.leases[0].conditions = conditions;
  FakeSocket.latest.show(snapshot);
}

it('tells once per reason that a slice is not enforced', () => {
  push(conditionSample('NotEnforced', 'error', 'a'));
  push(conditionSample('NotEnforced', 'error', 'a'));
  push(conditionSample('NotEnforced', 'error', 'b'));
  expect(news).toEqual(['l-tour NotEnforced: a', 'l-tour NotEnforced: b']);
});

it('tells once of each step of memory, until it is calm again', () => {
  push(conditionSample('MemoryPressure', 'warning', '18 of 20 GiB'));
  push(conditionSample('MemoryPressure', 'warning', '19 of 20 GiB'));
  push(conditionSample('MemoryExceeded', 'error', '21 of 20 GiB'));
  push(conditionSample('MemoryExceeded', 'error', '22 of 20 GiB'));
  push(conditionSample('MemoryPressure', 'warning', '19 of 20 GiB'));
  push();
  push(conditionSample('MemoryPressure', 'warning', '18.5 of 20 GiB'));
  push(conditionSample('MemoryUnknown', 'info', 'cannot be measured now'));
  expect(news).toEqual([
    'l-tour MemoryPressure: 18 of 20 GiB',
    'l-tour MemoryExceeded: 21 of 20 GiB',
    'l-tour MemoryPressure: 18.5 of 20 GiB'
  ]);
});

it('tells of each kind, whatever else holds', () => {
  push(conditionSample('NotEnforced', 'error', 'a'));
  push(
    conditionSample('DeviceFault', 'error', 'its GPU failed'),
    conditionSample('NotEnforced', 'error', 'a')
  );
  expect(news).toEqual([
    'l-tour NotEnforced: a',
    'l-tour DeviceFault: its GPU failed'
  ]);
});

it('leaves to the panel what needs no notification', () => {
  push(
    conditionSample('NotVerified', 'info', 'no tool here'),
    conditionSample('EnforcementReduced', 'info', 'MPS is off'),
    conditionSample('Note', 'info', 'on the device of its twin')
  );
  expect(news).toEqual([]);
});

it('tells the holders of a device that fails, once', () => {
  const snapshot: ISnapshot = sampleSnapshot();
  snapshot.host.devices[0].problem = 'client 7 has faulted';
  FakeSocket.latest.show(snapshot);
  FakeSocket.latest.show(snapshot);
  expect(news).toEqual(['l-tour client 7 has faulted']);
});

it('leaves a device that is sick to the condition of its lease', () => {
  const snapshot: ISnapshot = sampleSnapshot();
  const [device] = snapshot.host.devices;
  device.problem = 'reported Xid 95';
  device.conditions = [
    {
      code: 'XidError',
      severity: 'error',
      message: 'reported Xid 95',
      since: 0
    }
  ];
  FakeSocket.latest.show(snapshot);
  expect(news).toEqual([]);
  snapshot.leases[0].conditions = [
    conditionSample('DeviceUnhealthy', 'error', 'H100 reported Xid 95')
  ];
  FakeSocket.latest.show(snapshot);
  FakeSocket.latest.show(snapshot);
  expect(news).toEqual(['l-tour DeviceUnhealthy: H100 reported Xid 95']);
});

it('leaves out what other servers hold', () => {
  kernels = [];
  push(conditionSample('NotEnforced', 'error', 'a'));
  expect(news).toEqual([]);
});

it('is silent once disposed', () => {
  watcher.dispose();
  push(conditionSample('NotEnforced', 'error', 'a'));
  expect(news).toEqual([]);
});

import { Notification } from '@jupyterlab/apputils';

import { ConditionToasts } from '../../notifications/conditiontoasts';
import type { ILease } from '../../wire/types';
import { conditionSample, sampleSnapshot, trans } from '../fakes';

let done: string[];
let toasts: ConditionToasts;

beforeEach(() => {
  Notification.dismiss();
  done = [];
  toasts = new ConditionToasts({ open: () => done.push('open'), trans });
});

function lease(): ILease {
  const [first] = sampleSnapshot().leases;
  first.holder.label = `work/${'long'.repeat(40)}.ipynb`;
  return first;
}

function shown(): Notification.INotification[] {
  return Notification.manager.notifications;
}

function messages(): string[] {
  return shown().map(({ message }) => message.replace(/^long\w*…/, 'it'));
}

it('warns of what is not enforced, of memory, of a fault and of a sick device', () => {
  const [held] = sampleSnapshot().leases;
  const [device] = sampleSnapshot().host.devices;
  const long = 'python '.repeat(40);
  toasts.raised(lease(), conditionSample('NotEnforced', 'error', 'x'));
  toasts.raised(held, conditionSample('MemoryPressure', 'warning', long));
  toasts.raised(lease(), conditionSample('DeviceFault', 'error', 'Xid 31'));
  toasts.deviceFailed(held, { ...device, problem: 'client 7 has faulted' });
  const texts = messages();
  expect(texts[0]).toBe('tour.ipynb on GPU 0: client 7 has faulted');
  expect(texts[1]).toBe('it: Xid 31');
  expect(texts[2]).toMatch(/^Near its memory: python .*…$/);
  expect(texts[3]).toMatch(/^it: its slice is not enforced.*may help\.$/);
  for (const { message, options } of shown()) {
    expect(message.length).toBeLessThanOrEqual(140);
    expect(options.actions?.map(({ label }) => label)).toEqual(['Show']);
  }
});

it('stays for what needs a decision, and goes for what comes and goes', () => {
  toasts.raised(lease(), conditionSample('MemoryExceeded', 'error', 'x'));
  expect(shown()[0].options.autoClose).toBe(15_000);
  toasts.raised(lease(), conditionSample('NotEnforced', 'error', 'x'));
  expect(shown()[0].options.autoClose).toBe(false);
});

it('replaces what it has said of the same kind', () => {
  toasts.raised(lease(), conditionSample('NotEnforced', 'error', 'a'));
  toasts.raised(lease(), conditionSample('NotEnforced', 'error', 'b'));
  expect(shown()).toHaveLength(1);
  shown()[0].options.actions?.[0].callback(new MouseEvent('click'));
  expect(done).toEqual(['open']);
});

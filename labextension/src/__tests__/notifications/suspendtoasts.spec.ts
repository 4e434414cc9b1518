import { Notification } from '@jupyterlab/apputils';

import { SuspendToasts } from '../../notifications/suspendtoasts';
import type { SuspendableLease } from '../../text/devicestate';
import type { IDeviceState } from '../../wire/types';
import { KERNEL, LOST, suspendedSnapshot, trans, WARM } from '../fakes';

let done: string[];
let isOpen: boolean;
let isDue: boolean;
let toasts: SuspendToasts;

beforeEach(() => {
  Notification.dismiss();
  done = [];
  isOpen = true;
  isDue = false;
  toasts = new SuspendToasts({
    applySuspendAction: (id, verb) => done.push(`${verb} ${id}`),
    restartOf: id => (isOpen ? () => done.push(`restart ${id}`) : null),
    open: () => done.push('open'),
    shouldExplain: () => isDue,
    explained: () => {
      isDue = false;
    },
    trans
  });
});

function lease(changes: Partial<IDeviceState> = {}): SuspendableLease {
  const found = suspendedSnapshot(changes).leases[0] as SuspendableLease;
  found.holder.label = `work/${'long'.repeat(40)}.ipynb`;
  return found;
}

function shown(): Notification.INotification[] {
  return Notification.manager.notifications;
}

function messages(): string[] {
  return shown().map(({ message }) => message.replace(/^long\w*…/, 'it'));
}

function press(label: string): void {
  const action = shown()[0].options.actions?.find(a => a.label === label);
  action?.callback(new MouseEvent('click'));
}

it('explains a suspend once, whoever has asked for it, and stays', () => {
  isDue = true;
  toasts.suspended(lease(), false);
  expect(messages()).toEqual([
    'it is suspended: its GPU memory moved to the host to free capacity. Nothing is lost; it comes back when a cell needs it.'
  ]);
  expect(shown()[0].message.length).toBeLessThanOrEqual(140);
  expect(shown()[0].options.autoClose).toBe(false);
  press('Never suspend it');
  press('Resume');
  expect(done).toEqual(['pin l-tour', 'resume l-tour']);
});

it('leaves the explanation to be read when the slice is back, with nothing to press', () => {
  isDue = true;
  toasts.suspended(lease(), true);
  toasts.resumed(lease(WARM), false);
  expect(messages()).toEqual([expect.stringContaining('Nothing is lost')]);
  expect(shown()[0].options.actions).toEqual([]);
  toasts.suspended(lease(), true);
  expect(messages()[0]).toBe(
    'it is suspended: 9 GiB in host memory; it comes back when a cell needs it.'
  );
});

it('pops up for the first suspend of a slice, and only lists those after it', () => {
  toasts.suspended(lease(), true);
  expect(shown()[0].options.autoClose).toBe(10_000);
  toasts.resumed(lease(WARM), true);
  expect(messages()).toEqual(['it is back on its device.']);
  expect(shown()[0].options.autoClose).toBe(5000);
  toasts.suspended(lease(), true);
  expect(shown()).toHaveLength(1);
  expect(shown()[0].options.autoClose).toBe(0);
});

it('says nothing of what its user has asked for', () => {
  toasts.suspended(lease(), false);
  toasts.resumed(lease(WARM), false);
  expect(shown()).toEqual([]);
});

it('says of a loss how to go on, until that is done', () => {
  toasts.lost(lease(LOST));
  expect(messages()[0]).toContain('lost. Restart the kernel to go on.');
  expect(shown()[0].message.length).toBeLessThanOrEqual(140);
  expect(shown()[0].type).toBe('error');
  press('Restart kernel…');
  press('Show');
  expect(done).toEqual([`restart ${KERNEL}`, 'open']);
  toasts.over('l-tour');
  expect(shown()).toEqual([]);
});

it('offers no restart where there is no notebook to do it', () => {
  isOpen = false;
  toasts.lost(lease(LOST));
  const labels = shown()[0].options.actions?.map(({ label }) => label);
  expect(labels).toEqual(['Show']);
});

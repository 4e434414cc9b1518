import { Notification } from '@jupyterlab/apputils';

import { NewsToasts } from '../../notifications/newstoasts';
import type { NoticedLease } from '../../notifications/noticewatcher';
import type { INotice } from '../../wire/types';
import { sampleSnapshot, trans } from '../fakes';

let done: string[];
let hasNotebook: boolean;
let toasts: NewsToasts;

beforeEach(() => {
  Notification.dismiss();
  done = [];
  hasNotebook = true;
  toasts = new NewsToasts({
    extend: id => done.push(`extend ${id}`),
    saveOf: id => (hasNotebook ? () => done.push(`save ${id}`) : null),
    trans
  });
});

function noticed(kind: INotice['kind'], index = 0): NoticedLease {
  const notice = { kind, at: 0, ends_at: 60, request_id: '' };
  return { ...sampleSnapshot().leases[index], notice };
}

function shown(): Notification.INotification[] {
  return Notification.manager.notifications;
}

function labels(): string[] {
  return (shown()[0].options.actions ?? []).map(({ label }) => label);
}

function press(label: string): boolean {
  const event = new MouseEvent('click', { cancelable: true });
  const actions = shown()[0].options.actions ?? [];
  actions.find(action => action.label === label)?.callback(event);
  return event.defaultPrevented;
}

it('warns that an idle slice is reclaimed, and offers to extend it', () => {
  toasts.noticePending('k', noticed('idle'), 0);
  expect(shown()).toHaveLength(1);
  expect(shown()[0].type).toBe('warning');
  expect(shown()[0].options.autoClose).toBe(false);
  expect(shown()[0].message).toBe(
    'tour.ipynb: its slice is idle; it is reclaimed in 1 min. The kernel keeps running, on the CPU.'
  );
  expect(labels()).toEqual(['Extend', 'Save notebook']);
  press('Extend');
  expect(done).toEqual(['extend l-tour']);
});

it('offers to save what others need, not to extend it, and stays', () => {
  toasts.noticePending('k', noticed('preempt'), 0);
  expect(labels()).toEqual(['Save notebook']);
  expect(press('Save notebook')).toBe(true);
  expect(done).toEqual([expect.stringMatching(/^save 2f6c/)]);
});

it('says all of it in the 140 letters that are shown', () => {
  const lease = noticed('preempt');
  lease.holder.label = `work/${'long'.repeat(40)}.ipynb`;
  toasts.noticePending('k', lease, 0);
  expect(shown()[0].message.length).toBeLessThanOrEqual(140);
  expect(shown()[0].message).toMatch(
    /^longlong.*…: a higher-priority request.* in 1 min.*keeps running, on the CPU\.$/
  );
});

it('does not offer to save where there is no notebook', () => {
  hasNotebook = false;
  toasts.noticePending('k', noticed('preempt'), 0);
  expect(labels()).toEqual([]);
});

it('counts down in place, in steps that can be listened to', () => {
  const texts = new Set<string>();
  for (let now = 0; now <= 60; now++) {
    toasts.noticePending('k', noticed('idle'), now);
    texts.add(shown()[0].message.replace(/.*reclaimed in ([^.]*)\..*/, '$1'));
  }
  expect(shown()).toHaveLength(1);
  expect(Array.from(texts)).toEqual([
    '1 min',
    '50 s',
    '40 s',
    '30 s',
    '20 s',
    '10 s',
    'a moment'
  ]);
  expect(labels()).toEqual(['Extend', 'Save notebook']);
});

it('goes when the slice is kept', () => {
  toasts.noticePending('k', noticed('idle'), 0);
  toasts.noticeOver('k', noticed('idle'), false);
  expect(shown()).toEqual([]);
});

it.each([
  ['preempt', 'slice was preempted'],
  ['idle', 'idle slice was reclaimed']
] as const)('says afterwards that the slice has ended: %s', (kind, end) => {
  toasts.noticePending('k', noticed(kind), 0);
  toasts.noticeOver('k', noticed(kind), true);
  expect(shown().map(({ message }) => message)).toEqual([
    `tour.ipynb: its ${end}. The kernel keeps running, on the CPU.`
  ]);
  expect(shown()[0].options.autoClose).toBe(false);
});

it('tells of a grant and of an end', () => {
  const [lease] = sampleSnapshot().leases;
  toasts.granted(lease);
  toasts.ending(lease, 240);
  expect(shown().map(({ message }) => message)).toEqual([
    'Your slice 1/4 ends in 4 min',
    'Your slice was granted: 1/4'
  ]);
  press('Extend');
  expect(done).toEqual(['extend l-tour']);
});

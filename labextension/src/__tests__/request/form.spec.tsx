import * as React from 'react';
import { act } from 'react';
import { createRoot, type Root } from 'react-dom/client';

import {
  queueHint,
  RequestForm,
  sizeHint,
  type IRequestValue
} from '../../request/form';
import { sampleSnapshot, trans } from '../fakes';

const { host } = sampleSnapshot();
const NOTHING: IRequestValue = {
  spec: '1/4',
  leaseSeconds: null,
  queue: '',
  upTo: '',
  isPreemptible: false
};

let node: HTMLElement;
let root: Root;
let value: IRequestValue;

beforeEach(() => {
  node = document.createElement('div');
  document.body.append(node);
  root = createRoot(node);
  value = NOTHING;
});

afterEach(() => {
  act(() => root.unmount());
  node.remove();
});

function show(given = host): void {
  const props = { host: given, value, error: '', trans };
  act(() =>
    root.render(<RequestForm {...props} onChange={next => (value = next)} />)
  );
}

function field<T extends Element>(name: string): T | null {
  return node.querySelector<T>(`[name="${name}"]`);
}

it('offers the queues of the host, the own one first, closed ones not at all', () => {
  show();
  const options = field<HTMLSelectElement>('queue')!.options;
  expect(Array.from(options, ({ disabled, text }) => [text, disabled])).toEqual(
    [
      ['my own', false],
      ['default', false],
      ['batch (closed)', true]
    ]
  );
  expect(value.queue).toBe('');
});

it('tells of the queue that is chosen', () => {
  show();
  const select = field<HTMLSelectElement>('queue')!;
  act(() => {
    select.value = 'default';
    select.dispatchEvent(new Event('change', { bubbles: true }));
  });
  expect(value.queue).toBe('default');
  show();
  expect(node.textContent).toContain('Holds 3/4 devices; quota 1');
});

it('asks for no queue where there is but one', () => {
  show({ ...host, queues: host.queues.slice(0, 1) });
  expect(field('queue')).toBeNull();
});

it('may be preempted only when the user says so', () => {
  show();
  const box = field<HTMLInputElement>('preemptible')!;
  expect(box.checked).toBe(false);
  act(() => box.click());
  expect(value).toEqual({ ...NOTHING, isPreemptible: true });
});

it('lets a ceiling be chosen', () => {
  show();
  const select = field<HTMLSelectElement>('up_to')!;
  expect(select.value).toBe('');
  act(() => {
    select.value = '1/1';
    select.dispatchEvent(new Event('change', { bubbles: true }));
  });
  expect(value).toEqual({ ...NOTHING, upTo: '1/1' });
});

it.each([
  ['1/4', true, 'free now'],
  ['1/4', false, 'Only whole devices are granted here'],
  ['1', false, 'free now']
])(
  'does not promise a share that nobody grants (%s, divisible: %s)',
  (spec, is_divisible, words) => {
    const { host: given } = sampleSnapshot();
    given.devices = [{ ...given.devices[0], free_fraction: '1', is_divisible }];
    expect(sizeHint(spec, given, trans)).toContain(words);
  }
);

it.each([
  [0, 'Holds 3/4 devices; quota 1; idle slices are reclaimed after 25 min'],
  [
    1,
    'Holds 0 of at most 5/2 devices; for @class, ann; yields to interactive work'
  ]
])('says what a queue holds and on which terms (%i)', (index, text) => {
  expect(queueHint(host.queues[index], trans)).toBe(text);
});

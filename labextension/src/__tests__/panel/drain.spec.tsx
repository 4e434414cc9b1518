import * as React from 'react';
import { createRoot } from 'react-dom/client';
import { act } from 'react';

import { DrainLine } from '../../panel/drain';
import type { IDrain } from '../../wire/types';
import { sampleSnapshot, trans } from '../fakes';

const drained: IDrain = {
  kind: 'drain',
  reason: 'a fan',
  until: null,
  since: 0,
  created_by: 'ops'
};
let done: string[];

function line(
  drain: IDrain | null,
  roles: string[],
  online = true
): HTMLElement {
  done = [];
  const { host } = sampleSnapshot();
  const page = document.createElement('div');
  act(() =>
    createRoot(page).render(
      <DrainLine
        actions={{
          drain: id => done.push(`drain ${id}`),
          undrain: id => done.push(`undrain ${id}`)
        }}
        device={{ ...host.devices[0], id: 'GPU-0', drain }}
        host={{ ...host, roles }}
        now={0}
        online={online}
        trans={trans}
      />
    )
  );
  return page;
}

it('shows nothing to users while a device may be granted', () => {
  expect(line(null, ['user', 'manager']).innerHTML).toBe('');
});

it('shows users why it may not be, and no button', () => {
  const page = line(drained, ['user']);
  expect(page.textContent).toBe('Drained by ops: a fan');
  expect(page.querySelector('button')).toBeNull();
});

it.each([
  [null, 'Drain…', 'drain GPU-0'],
  [drained, 'Undrain', 'undrain GPU-0']
])('gives operators a button that changes it', (drain, label, action) => {
  const button = line(drain, ['user', 'operator']).querySelector('button')!;
  expect(button.textContent).toBe(label);
  act(() => button.click());
  expect(done).toEqual([action]);
});

it('acts on no stale data', () => {
  const page = line(drained, ['admin'], false);
  expect(page.querySelector('button')!.disabled).toBe(true);
});

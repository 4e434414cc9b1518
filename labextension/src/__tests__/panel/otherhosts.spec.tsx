import * as React from 'react';
import { act } from 'react';
import { createRoot, type Root } from 'react-dom/client';

import { OtherHosts } from '../../panel/otherhosts';
import type { IHostOverview, IHosts } from '../../wire/types';
import { sampleSnapshot, trans } from '../fakes';

let node: HTMLElement;
let root: Root;
let asked: number;

beforeEach(() => {
  asked = 0;
  node = document.createElement('div');
  document.body.append(node);
  root = createRoot(node);
});

afterEach(() => {
  act(() => root.unmount());
  node.remove();
});

function overview(changes: Partial<IHostOverview> = {}): IHostOverview {
  const { leases, queue } = sampleSnapshot();
  const [lease] = leases;
  const device = {
    id: lease.slices[0].device_id,
    index: 0,
    name: 'H100',
    kind: 'gpu' as const,
    memory_bytes: 80 * 2 ** 30,
    simulated: true,
    problem: '',
    free_fraction: '3/4'
  };
  return {
    id: 'boot-far',
    name: 'far',
    is_here: false,
    is_heard: true,
    seen_at: 90,
    devices: [device],
    leases: [lease],
    queue,
    ...changes
  };
}

async function open(fetch: () => Promise<IHosts>): Promise<void> {
  const counted = (): Promise<IHosts> => {
    asked += 1;
    return fetch();
  };
  act(() =>
    root.render(<OtherHosts count={2} fetch={counted} trans={trans} />)
  );
  expect(asked).toBe(0);
  const details = node.querySelector('details')!;
  act(() => {
    details.open = true;
    details.dispatchEvent(new Event('toggle'));
  });
  await act(() => vi.waitFor(() => expect(asked).toBe(1)));
}

it('asks for the hosts when it is opened, and shows all but this one', async () => {
  const here = overview({ id: 'boot-near', name: 'near', is_here: true });
  await open(async () => ({ at: 100, hosts: [here, overview()] }));
  expect(node.querySelector('summary')!.textContent).toBe(
    '2 other hosts share this queue'
  );
  const hosts = node.querySelectorAll('[data-host-id]');
  expect(hosts).toHaveLength(1);
  expect(hosts[0].textContent).toContain('farH100 · 80 GiB · 3/4 free');
  expect(hosts[0].textContent).toContain('tour.ipynb · ann');
  expect(hosts[0].textContent).not.toContain('eard of');
});

it('says what is not known of a host that was not heard of', async () => {
  const device = { ...overview().devices[0], free_fraction: null };
  const lost = overview({ is_heard: false, devices: [device], queue: [] });
  const never = overview({
    id: 'boot-never',
    is_heard: false,
    seen_at: null,
    devices: []
  });
  await open(async () => ({ at: 390, hosts: [lost, never] }));
  const [first, second] = node.querySelectorAll('[data-host-id]');
  expect(first.textContent).toContain('Not heard of for 5 min');
  expect(first.textContent).not.toContain('free · ');
  expect(first.textContent).not.toContain('wait');
  expect(second.textContent).toContain('Never heard of');
});

it('says why the hosts cannot be shown', async () => {
  await open(() => Promise.reject(new Error('the ledger does not answer')));
  await act(() =>
    vi.waitFor(() =>
      expect(node.textContent).toContain('the ledger does not answer')
    )
  );
});

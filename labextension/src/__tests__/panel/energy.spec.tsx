import * as React from 'react';
import { act } from 'react';
import { createRoot, type Root } from 'react-dom/client';

import { Energy, wattHoursOf } from '../../panel/energy';
import type { IUsageSummary, ILease } from '../../wire/types';
import { KERNEL, sampleSnapshot, trans } from '../fakes';

const SUMS = {
  gpu_seconds: 100,
  metered_seconds: 96,
  energy_joules: 17_100,
  energy_estimated_joules: 0
};

let asked: string[];
let node: HTMLElement;
let root: Root;

beforeEach(() => {
  asked = [];
  node = document.createElement('dl');
  root = createRoot(node);
});

async function show(
  lease: ILease,
  answer: IUsageSummary | null
): Promise<void> {
  const usageSummary = async (kernelId: string): Promise<IUsageSummary> => {
    asked.push(kernelId);
    if (!answer) {
      throw new Error('404');
    }
    return answer;
  };
  const before = asked.length;
  act(() =>
    root.render(
      <Energy usageSummary={usageSummary} lease={lease} trans={trans} />
    )
  );
  await act(() =>
    vi.waitFor(() => expect(asked.length).toBeGreaterThan(before))
  );
}

it('shows what the books have charged the slice', async () => {
  const [lease] = sampleSnapshot().leases;
  await show(lease, { leases: { 'l-tour': SUMS } });
  expect(asked).toEqual([KERNEL]);
  expect(node.textContent).toBe('Energy4.8 Wh');
  act(() => root.unmount());
});

it('marks what is an estimate in part', async () => {
  const [lease] = sampleSnapshot().leases;
  const sums = { ...SUMS, energy_estimated_joules: 1 };
  await show(lease, { leases: { 'l-tour': sums } });
  expect(node.textContent).toBe('Energy4.8 Wh, an estimate');
  act(() => root.unmount());
});

it('shows nothing of a slice that has been charged nothing, or by a server without books', async () => {
  const [lease] = sampleSnapshot().leases;
  await show(lease, { leases: {} });
  expect(node.textContent).toBe('');
  await show({ ...lease, id: 'another' }, null);
  expect(asked).toHaveLength(2);
  expect(node.textContent).toBe('');
  act(() => root.unmount());
});

it.each([
  [{ ...SUMS, metered_seconds: 94 }, null],
  [{ ...SUMS, gpu_seconds: 0, metered_seconds: 0 }, null],
  [{ ...SUMS, energy_joules: 7200 }, 2]
])('is not known for a part that is too small (%o)', (sums, wattHours) => {
  expect(wattHoursOf(sums)).toBe(wattHours);
});

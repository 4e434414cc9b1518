import { idleSeconds, idleText } from '../../text/idle';
import type { IHost, ILease } from '../../wire/types';
import { sampleSnapshot, trans } from '../fakes';

let host: IHost;
let lease: ILease;
const active = 1790002440;

beforeEach(() => {
  const snapshot = sampleSnapshot();
  host = snapshot.host;
  lease = snapshot.leases[0];
});

it('counts from the moment its queue says, and since it was last in use', () => {
  expect(idleSeconds(lease, host, active + 599)).toBeNull();
  expect(idleSeconds(lease, host, active + 600)).toBe(600);
  expect(idleText(lease, host, active + 2040, trans)).toBe('idle 34 min');
  expect(idleText(lease, host, active + 599, trans)).toBe('');
});

it.each([
  ['nobody watches', () => (lease.active_at = null)],
  ['it is given back', () => (lease.state = 'releasing')],
  ['it has ended', () => (lease.state = 'ended')],
  ['its queue leaves it alone', () => (host.queues[0].idle = null)],
  ['its queue is gone', () => (lease.queue = 'gone')]
] as [string, () => unknown][])('is not idle where %s', (_, change) => {
  change();
  expect(idleSeconds(lease, host, active + 9999)).toBeNull();
});

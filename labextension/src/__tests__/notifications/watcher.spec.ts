import type { LeaseManager } from '../../api/manager';
import { LeaseWatcher } from '../../notifications/watcher';
import {
  FakeKernel,
  FakeServer,
  FakeSocket,
  KERNEL,
  managerOf,
  sampleSnapshot
} from '../fakes';

let manager: LeaseManager;
let news: string[];
let watcher: LeaseWatcher;
let warnSeconds: number;

beforeEach(() => {
  manager = managerOf(new FakeServer());
  news = [];
  warnSeconds = 300;
  watcher = new LeaseWatcher(
    manager,
    new FakeKernel(KERNEL),
    {
      granted: lease => news.push(`granted ${lease.id}`),
      ending: lease => news.push(`ending ${lease.ends_at}`)
    },
    () => warnSeconds
  );
});

afterEach(() => {
  watcher.dispose();
  manager.dispose();
});

function push(secondsLeft: number): void {
  const snapshot = sampleSnapshot();
  snapshot.leases[0].ends_at = snapshot.usage.at + secondsLeft;
  FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
}

it('warns once of each end', () => {
  push(1000);
  push(200);
  push(200);
  push(2000);
  push(250);
  const { at } = sampleSnapshot().usage;
  expect(news).toEqual([`ending ${at + 200}`, `ending ${at + 250}`]);
});

it('does not warn when told not to', () => {
  warnSeconds = 0;
  push(1);
  expect(news).toEqual([]);
});

it('tells when what a kernel waited for is there', () => {
  const snapshot = sampleSnapshot();
  const waiting = {
    ...snapshot.queue[0],
    id: 'r-tour',
    holder: snapshot.leases[0].holder
  };
  FakeSocket.latest.push({
    type: 'snapshot',
    ...snapshot,
    leases: [],
    queue: [waiting]
  });
  push(1000);
  push(1000);
  expect(news).toEqual(['granted l-tour']);
});

import type { LabIcon } from '@jupyterlab/ui-components';

import type { LeaseManager } from '../../api/manager';
import { RUNNING_CLASS, RunningLeases } from '../../status/running';
import {
  FakeServer,
  FakeSocket,
  KERNEL,
  managerOf,
  PARENT_KERNEL,
  samples,
  sampleSnapshot,
  suspendedSnapshot,
  trans
} from '../fakes';

let kernels: string[];
let manager: LeaseManager;
let opened: number;
let released: string[];
let reported: unknown[];
let running: RunningLeases;
let server: FakeServer;

beforeEach(() => {
  server = new FakeServer();
  manager = managerOf(server);
  kernels = [KERNEL, PARENT_KERNEL];
  opened = 0;
  released = [];
  reported = [];
  running = new RunningLeases({
    icon: {} as LabIcon,
    kernelIds: () => kernels,
    manager,
    open: () => (opened += 1),
    release: id => released.push(id),
    report: error => reported.push(error),
    trans
  });
});

afterEach(() => manager.dispose());

function names(): unknown[] {
  return running.running().map(item => item.label());
}

function deleted(): string[] {
  return server.asked
    .filter(({ method }) => method === 'DELETE')
    .map(({ path }) => path);
}

it('is empty before there is data', () => {
  expect(running.running()).toEqual([]);
});

describe('with data', () => {
  beforeEach(() => FakeSocket.latest.pushSnapshot());

  it('lists the slices of the kernels of this server and of their workers', () => {
    expect(names()).toEqual(['tour.ipynb', 'worker:worker-0']);
    kernels = [KERNEL];
    expect(names()).toEqual(['tour.ipynb']);
    kernels = [];
    expect(names()).toEqual([]);
  });

  it('says how much and for how long', () => {
    const details = running.running().map(item => item.detail?.());
    expect(details).toEqual(['1/4 · 41 min', '1/2']);
  });

  it('says how a slice stands, and which it is for the context menu', () => {
    FakeSocket.latest.show(suspendedSnapshot());
    const [item] = running.running();
    expect(item.detail?.()).toBe('1/4 · suspended · 41 min');
    expect([item.className, item.context]).toEqual([RUNNING_CLASS, 'l-tour']);
  });

  it('opens the panel, and releases as the command does', () => {
    const [item] = running.running();
    item.open?.();
    item.shutdown?.();
    expect(opened).toBe(1);
    expect(released).toEqual(['l-tour']);
  });

  it('follows the data', () => {
    let changes = 0;
    running.runningChanged.connect(() => (changes += 1));
    const snapshot = sampleSnapshot();
    snapshot.leases = [];
    FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
    expect(changes).toBeGreaterThan(0);
    expect(names()).toEqual([]);
  });

  it('releases all of them, and nothing that is of others', async () => {
    kernels = [KERNEL];
    server.answer('DELETE leases/l-tour', sampleSnapshot().leases[0]);
    running.shutdownAll();
    await vi.waitFor(() => expect(deleted()).toEqual(['leases/l-tour']));
    expect(reported).toEqual([]);
  });

  it('reports each release that the server refuses', async () => {
    server.answer('DELETE leases/l-tour', samples().error, 403);
    server.answer('DELETE leases/l-worker', sampleSnapshot().leases[1]);
    running.shutdownAll();
    await vi.waitFor(() => expect(reported).toHaveLength(1));
    expect(deleted()).toEqual(['leases/l-tour', 'leases/l-worker']);
  });

  it('reports a refresh that fails', async () => {
    server.answer('GET usage', 'gone', 500);
    running.refreshRunning();
    await vi.waitFor(() => expect(reported).toHaveLength(1));
  });
});

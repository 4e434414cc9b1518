import { CommandRegistry } from '@lumino/commands';

import type { LeaseManager } from '../../api/manager';
import { ALL_COMMANDS, CommandIDs } from '../../commands/base';
import { addCommands } from '../../commands/lease';
import { messageOf } from '../../wire/errors';
import type { IDeviceState } from '../../wire/types';
import {
  FakeKernel,
  FakeServer,
  FakeSocket,
  KERNEL,
  managerOf,
  LOST,
  sampleSnapshot,
  suspendedSnapshot,
  trans,
  WAITING_KERNEL,
  WARM
} from '../fakes';

let answer: boolean;
let asked: string[];
let commands: CommandRegistry;
let kernel: FakeKernel;
let manager: LeaseManager;
let kernels: string[];
let notebooks: string[];
let reported: unknown[];
let restarted: string[];
let told: { message: string; undo?: () => void }[];
let underMouse: string | null;
let server: FakeServer;

beforeEach(() => {
  server = new FakeServer();
  manager = managerOf(server);
  commands = new CommandRegistry();
  kernel = new FakeKernel(KERNEL);
  asked = [];
  reported = [];
  restarted = [];
  told = [];
  kernels = [KERNEL];
  notebooks = [KERNEL];
  underMouse = null;
  answer = true;
  addCommands({
    commands,
    manager,
    kernel,
    trans,
    extendSeconds: () => 1800,
    openPanel: () => undefined,
    askRequest: async id => {
      asked.push(id);
      return null;
    },
    confirm: async () => answer,
    ask: async () => (answer ? 'a fan' : null),
    kernelIds: () => kernels,
    leaseUnderMouse: () => underMouse,
    restarterOf: id =>
      notebooks.includes(id) ? async () => restarted.push(id) : null,
    notify: (message, undo) => told.push({ message, undo }),
    report: error => reported.push(error)
  });
});

afterEach(() => manager.dispose());

function pushNotice(kind: 'idle' | 'preempt', endsAt: number | null): void {
  const snapshot = sampleSnapshot();
  const { at } = snapshot.usage;
  snapshot.leases[0].ends_at = endsAt;
  snapshot.leases[0].notice = { kind, at, ends_at: at + 60, request_id: '' };
  FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
}

function enabled(): string[] {
  return ALL_COMMANDS.filter(id => commands.isEnabled(id)).map(
    id => id.split(':')[1]
  );
}

describe('which commands are enabled', () => {
  it('none that acts, before there is data', () => {
    expect(enabled()).toEqual(['open', 'refresh']);
  });

  it('extend and release for a kernel with a slice', () => {
    FakeSocket.latest.pushSnapshot();
    expect(enabled()).toEqual(['open', 'release', 'extend', 'refresh']);
  });

  it('only cancel for one that waits', () => {
    FakeSocket.latest.pushSnapshot();
    kernel.id = WAITING_KERNEL;
    expect(enabled()).toEqual(['open', 'cancel', 'refresh']);
  });

  it('only request for one with neither', () => {
    FakeSocket.latest.pushSnapshot();
    kernel.id = 'a-third';
    expect(enabled()).toEqual(['open', 'request', 'refresh']);
  });

  it('none that acts without a kernel or connection', () => {
    FakeSocket.latest.pushSnapshot();
    kernel.id = null;
    expect(enabled()).toEqual(['open', 'refresh']);
    kernel.id = KERNEL;
    FakeSocket.latest.fail();
    expect(enabled()).toEqual(['open', 'refresh']);
  });

  it('no extending of a slice without an end', () => {
    const snapshot = sampleSnapshot();
    snapshot.leases[0].ends_at = null;
    FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
    expect(enabled()).not.toContain('extend');
  });

  it('extending of one without an end that nobody uses', () => {
    pushNotice('idle', null);
    expect(enabled()).toContain('extend');
  });

  it('no extending of one that others need', () => {
    pushNotice('preempt', sampleSnapshot().usage.at + 60);
    expect(enabled()).not.toContain('extend');
    expect(enabled()).toContain('release');
  });
});

describe('what the commands do', () => {
  const { leases, queue } = sampleSnapshot();

  beforeEach(() => FakeSocket.latest.pushSnapshot());

  it('asks the user when no size is given', async () => {
    kernel.id = 'a-third';
    await commands.execute(CommandIDs.request);
    expect(asked).toEqual(['a-third']);
    expect(server.asked).toEqual([]);
  });

  it('requests what a program says', async () => {
    server.answer('POST leases', { request: queue[0], lease: null }, 202);
    const args = {
      spec: '1/8',
      kernel_id: 'a-third',
      queue: 'batch',
      lease_seconds: 60,
      up_to: '1/1',
      preemptible: true
    };
    await commands.execute(CommandIDs.request, args);
    expect(server.asked[0].body).toEqual(args);
    expect(asked).toEqual([]);
  });

  it('releases only with consent while others wait', async () => {
    server.answer('DELETE leases/l-tour', leases[0]);
    answer = false;
    await commands.execute(CommandIDs.release);
    expect(server.asked).toEqual([]);
    answer = true;
    await commands.execute(CommandIDs.release);
    expect(server.asked[0].method).toBe('DELETE');
  });

  it('extends by what is set', async () => {
    server.answer('POST leases/l-tour/extend', leases[0]);
    await commands.execute(CommandIDs.extend);
    expect(server.asked[0].body).toEqual({ seconds: 1800 });
  });

  const SAID = [
    [
      403,
      'NotYours',
      'that belongs to bob; only they or an admin may change it'
    ],
    [409, 'LeaseEnded', 'the lease has ended; request a new slice'],
    [503, 'LedgerUnavailable', 'the ledger does not answer; try again']
  ] as const;

  it.each(SAID)(
    'tells user and caller what the server said (%i)',
    async (status, code, message) => {
      const body = { code, message, facts: {}, reason: null };
      server.answer('POST leases/l-tour/extend', body, status);
      await expect(commands.execute(CommandIDs.extend)).rejects.toThrow(
        message
      );
      expect(reported.map(messageOf)).toEqual([message]);
    }
  );
});

describe('commands on a slice that may be suspended', () => {
  const { leases } = suspendedSnapshot();

  it('are none where it never is', () => {
    FakeSocket.latest.pushSnapshot();
    expect(commands.isVisible(CommandIDs.suspend)).toBe(false);
    expect(enabled()).not.toContain('suspend');
  });

  it.each([
    [WARM, ['suspend', 'pin']],
    [{ ...WARM, asked: 'suspend' }, ['resume', 'pin']],
    [{ ...WARM, is_busy: true, standing: 'held' }, ['pin']],
    [{ ...WARM, standing: 'pinned', pinned: 'NCCL', why: 'NCCL' }, ['pin']],
    [{ ...WARM, standing: 'pinned', is_kept: true, why: 'kept' }, ['unpin']],
    [{ phase: 'parking', standing: 'warm' }, ['resume', 'pin']],
    [{}, ['resume', 'pin']],
    [{ wanted_at: 1 }, ['pin']],
    [{ phase: 'restoring' }, ['pin']],
    [LOST, ['restart']]
  ] as [Partial<IDeviceState>, string[]][])(
    'are those that make sense (%o)',
    (changes, expected) => {
      FakeSocket.latest.show(suspendedSnapshot(changes));
      const verbs = ['suspend', 'resume', 'pin', 'unpin', 'restart'];
      expect(enabled().filter(id => verbs.includes(id))).toEqual(expected);
    }
  );

  it('do not suspend where the host cannot', () => {
    const snapshot = suspendedSnapshot(WARM);
    snapshot.host.suspend = {
      tier: 'off',
      why: 'the self-test failed',
      context_bytes: null
    };
    FakeSocket.latest.show(snapshot);
    expect(enabled()).not.toContain('suspend');
  });

  it('leave alone what is of others', () => {
    kernels = [];
    FakeSocket.latest.show(suspendedSnapshot());
    expect(enabled()).not.toContain('resume');
    expect(commands.isEnabled(CommandIDs.resume, { lease_id: 'l-tour' })).toBe(
      false
    );
  });

  it('reach own slices of notebooks in the background by their id', () => {
    kernel.id = 'another';
    FakeSocket.latest.show(suspendedSnapshot());
    expect(commands.isEnabled(CommandIDs.resume)).toBe(false);
    expect(commands.isEnabled(CommandIDs.resume, { lease_id: 'l-tour' })).toBe(
      true
    );
  });

  it('in the context menu mean what is under the mouse, and only what makes sense is listed', () => {
    FakeSocket.latest.show(suspendedSnapshot());
    const args = { in_context: true };
    expect(commands.isVisible(CommandIDs.resume, args)).toBe(false);
    underMouse = 'l-tour';
    expect(commands.isVisible(CommandIDs.resume, args)).toBe(true);
    expect(commands.isVisible(CommandIDs.suspend, args)).toBe(false);
    underMouse = 'l-worker';
    expect(commands.isVisible(CommandIDs.resume, args)).toBe(false);
  });

  it('say what they have done and take it back once', async () => {
    server.answer('POST leases/l-tour/resume', leases[0]);
    server.answer('POST leases/l-tour/suspend', leases[0]);
    server.answer('GET leases', { leases });
    FakeSocket.latest.show(suspendedSnapshot());
    await commands.execute(CommandIDs.resume);
    expect(told.map(({ message }) => message)).toEqual([
      'tour.ipynb: its slice comes back as soon as there is capacity.'
    ]);
    told[0].undo?.();
    await vi.waitFor(() =>
      expect(
        server.asked.filter(({ method }) => method === 'POST')
      ).toMatchObject([
        { path: 'leases/l-tour/resume' },
        { path: 'leases/l-tour/suspend' }
      ])
    );
    expect(told).toHaveLength(1);
  });

  it('report what the server says against it', async () => {
    const body = {
      code: 'LeaseError',
      message: 'a cell of it runs',
      facts: {}
    };
    server.answer('POST leases/l-tour/suspend', body, 409);
    FakeSocket.latest.show(suspendedSnapshot(WARM));
    await expect(commands.execute(CommandIDs.suspend)).rejects.toThrow(
      'a cell of it runs'
    );
    expect(reported.map(messageOf)).toEqual(['a cell of it runs']);
    expect(told).toEqual([]);
  });

  it('restart the kernel of a lost one, when its notebook is open', async () => {
    FakeSocket.latest.show(suspendedSnapshot(LOST));
    await commands.execute(CommandIDs.restart);
    expect(restarted).toEqual([KERNEL]);
    notebooks = [];
    expect(commands.isVisible(CommandIDs.restart)).toBe(false);
    await expect(commands.execute(CommandIDs.restart)).rejects.toThrow(
      'No open notebook'
    );
  });
});

it('passes advice on that comes with the answer to a request', async () => {
  FakeSocket.latest.pushSnapshot();
  const { queue } = sampleSnapshot();
  const advice = 'peak 9.3 GiB: 1/8 would do';
  server.answer('POST leases', { request: queue[0], lease: null, advice }, 202);
  await commands.execute(CommandIDs.request, { spec: '1', kernel_id: 'a' });
  expect(told).toEqual([{ message: advice, undo: undefined }]);
});

describe('every command', () => {
  it.each(ALL_COMMANDS)('%s has label, caption and arguments', async id => {
    expect(commands.label(id)).not.toBe('');
    expect(commands.caption(id)).not.toBe('');
    const { args } = await commands.describedBy(id);
    expect(args).toMatchObject({ type: 'object' });
  });
});

describe('taking devices out of placement', () => {
  function pushAs(...roles: string[]): string {
    const snapshot = sampleSnapshot();
    snapshot.host.roles = roles;
    const [device] = snapshot.host.devices;
    device.drain = null;
    server.answer(`POST devices/${device.id}/drain`, device);
    server.answer(`DELETE devices/${device.id}/drain`, device);
    FakeSocket.latest.show(snapshot);
    return device.id;
  }

  it('is for operators and admins, and for devices that are there', () => {
    const device_id = pushAs('user', 'manager');
    expect(commands.isEnabled(CommandIDs.drain, { device_id })).toBe(false);
    pushAs('user', 'operator');
    expect(commands.isEnabled(CommandIDs.drain, { device_id })).toBe(true);
    expect(commands.isEnabled(CommandIDs.undrain, { device_id })).toBe(false);
    const gone = { device_id: 'GPU-gone' };
    expect(commands.isEnabled(CommandIDs.drain, gone)).toBe(false);
  });

  it('asks why, and does nothing where the user thinks better of it', async () => {
    const device_id = pushAs('user', 'operator');
    const path = `devices/${device_id}/drain`;
    answer = false;
    await commands.execute(CommandIDs.drain, { device_id });
    expect(server.asked.some(call => call.path === path)).toBe(false);
    answer = true;
    await commands.execute(CommandIDs.drain, { device_id });
    const body = { reason: 'a fan' };
    expect(server.asked).toContainEqual({ method: 'POST', path, body });
    await commands.execute(CommandIDs.undrain, { device_id });
    expect(server.asked).toContainEqual({ method: 'DELETE', path, body: null });
  });
});

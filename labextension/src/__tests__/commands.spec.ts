import { CommandRegistry } from '@lumino/commands';

import { addCommands, ALL_COMMANDS, CommandIDs } from '../commands';
import { messageOf } from '../errors';
import type { LeaseManager } from '../manager';
import {
  FakeKernel,
  FakeServer,
  FakeSocket,
  KERNEL,
  managerOf,
  sampleSnapshot,
  trans,
  WAITING_KERNEL
} from './fakes';

let answer: boolean;
let asked: string[];
let commands: CommandRegistry;
let kernel: FakeKernel;
let manager: LeaseManager;
let reported: unknown[];
let server: FakeServer;

beforeEach(() => {
  server = new FakeServer();
  manager = managerOf(server);
  commands = new CommandRegistry();
  kernel = new FakeKernel(KERNEL);
  asked = [];
  reported = [];
  answer = true;
  addCommands({
    commands,
    manager,
    kernel,
    trans,
    extendSeconds: () => 1800,
    openPanel: () => undefined,
    askRequest: async id => asked.push(id),
    confirm: async () => answer,
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

describe('every command', () => {
  it.each(ALL_COMMANDS)('%s has label, caption and arguments', async id => {
    expect(commands.label(id)).not.toBe('');
    expect(commands.caption(id)).not.toBe('');
    const { args } = await commands.describedBy(id);
    expect(args).toMatchObject({ type: 'object' });
  });
});

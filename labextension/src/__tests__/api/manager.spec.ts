import type { LeaseManager } from '../../api/manager';
import { AIStackError } from '../../wire/errors';
import {
  FakeServer,
  FakeSocket,
  KERNEL,
  managerOf,
  samples,
  sampleSnapshot,
  WAITING_KERNEL
} from '../fakes';

let manager: LeaseManager;
let server: FakeServer;
let changes: number;

beforeEach(() => {
  server = new FakeServer();
  manager = managerOf(server);
  changes = 0;
  manager.changed.connect(() => (changes += 1));
});

afterEach(() => manager.dispose());

function routes(): string[] {
  return server.asked.map(({ method, path }) => `${method} ${path}`);
}

describe('before the first snapshot', () => {
  it('is loading and empty', () => {
    expect(manager.status).toBe('loading');
    expect(manager.host).toBeNull();
    expect(manager.leases).toEqual([]);
    expect(manager.lastSeen).toBeNull();
  });
});

describe('with a snapshot', () => {
  beforeEach(() => FakeSocket.latest.pushSnapshot());

  it('knows what the server said and tells of it', () => {
    const { host, leases, queue, usage } = sampleSnapshot();
    expect(manager).toMatchObject({ host, leases, queue, usage });
    expect(manager.status).toBe('connected');
    expect(changes).toBeGreaterThan(0);
  });

  it('finds the lease and the request of a kernel', () => {
    expect(manager.leaseOf(KERNEL)?.id).toBe('l-tour');
    expect(manager.leaseOf(WAITING_KERNEL)).toBeNull();
    expect(manager.requestOf(WAITING_KERNEL)?.id).toBe('r-waits');
  });

  it('tells the time by the clock of the server where the two differ', () => {
    const { at } = sampleSnapshot().usage;
    expect(manager.now()).toBeGreaterThanOrEqual(at);
    expect(manager.now()).toBeLessThan(at + 10);
  });

  it('keeps the data when the connection is lost', () => {
    FakeSocket.latest.fail('server stopped');
    expect(manager.status).toBe('disconnected');
    expect(manager.problem).toBe('server stopped');
    expect(manager.leases).not.toEqual([]);
  });
});

describe('a verb', () => {
  const [lease] = sampleSnapshot().leases;
  const [request] = sampleSnapshot().queue;

  it('acts on the server and then fetches what became of it', async () => {
    server.answer('DELETE leases/l-tour', lease);
    const released = await manager.release('l-tour');
    expect(released.id).toBe('l-tour');
    expect(routes()[0]).toBe('DELETE leases/l-tour');
    expect(routes()).toContain('GET leases');
    expect(manager.leases).toHaveLength(3);
  });

  it('sends what was asked for', async () => {
    server.answer('POST leases', { request, lease: null }, 202);
    const answer = await manager.request({ spec: '1/2', kernel_id: KERNEL });
    expect(answer.lease).toBeNull();
    expect(server.asked[0].body).toEqual({ spec: '1/2', kernel_id: KERNEL });
  });

  it('extends and cancels on their own routes', async () => {
    server.answer('POST leases/l-tour/extend', lease);
    server.answer('DELETE queue/r-waits', request);
    await manager.extend('l-tour', 1800);
    await manager.cancel('r-waits');
    expect(server.asked[0].body).toEqual({ seconds: 1800 });
    expect(routes()).toContain('DELETE queue/r-waits');
  });

  it.each(['suspend', 'resume', 'pin', 'unpin'] as const)(
    'moves state on a route of its own, with an empty body: %s',
    async verb => {
      server.answer(`POST leases/l-tour/${verb}`, lease);
      expect((await manager.applySuspendAction('l-tour', verb)).id).toBe(
        'l-tour'
      );
      expect(server.asked[0].body).toEqual({});
      expect(routes()).toContain('GET leases');
    }
  );

  it('fails with the error of the server', async () => {
    server.answer('POST leases', samples().error, 409);
    const refused = manager.request({ spec: '4' });
    await expect(refused).rejects.toBeInstanceOf(AIStackError);
    await expect(refused).rejects.toMatchObject({
      code: 'Unsatisfiable',
      status: 409,
      facts: { largest: '2' }
    });
  });

  it('succeeds even when the refresh after it fails', async () => {
    server.answer('DELETE leases/l-tour', lease);
    server.answer('GET usage', 'gone', 500);
    await expect(manager.release('l-tour')).resolves.toMatchObject({
      id: 'l-tour'
    });
  });

  it('says what to look for when the server knows nothing of us', async () => {
    await expect(manager.release('x/../y')).rejects.toThrow(
      /server extension jupyter_aistack/
    );
    expect(routes()[0]).toBe('DELETE leases/x%2F..%2Fy');
  });
});

describe('watching', () => {
  it('asks for a snapshot a second for as long as someone looks', () => {
    FakeSocket.latest.accept();
    const first = manager.watch();
    const second = manager.watch();
    first.dispose();
    second.dispose();
    const asked = FakeSocket.latest.sent.map(
      message => (message as { interval: number }).interval
    );
    expect(asked[0]).toBe(5);
    expect(asked.slice(1)).toEqual([1, 1, 1, 5]);
  });
});

it('is silent once disposed', () => {
  const socket = FakeSocket.latest;
  manager.dispose();
  expect(socket.isClosed).toBe(true);
  document.dispatchEvent(new Event('visibilitychange'));
  expect(changes).toBe(0);
});

import {
  FAILURES_BEFORE_POLLING,
  retryDelay,
  SILENCE_MS,
  SnapshotStream
} from '../../api/stream';
import type { ConnectionStatus } from '../../tokens';
import type { ISnapshot } from '../../wire/types';
import { FakeSocket, sampleSnapshot } from '../fakes';

let snapshots: ISnapshot[];
let statuses: ConnectionStatus[];
let problems: (string | undefined)[];
let fetched: number;
let fetch: () => Promise<ISnapshot>;
let stream: SnapshotStream;

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.opened = [];
  snapshots = [];
  statuses = [];
  problems = [];
  fetched = 0;
  fetch = async () => sampleSnapshot();
  stream = new SnapshotStream({
    open: () => FakeSocket.open(),
    fetch: () => {
      fetched += 1;
      return fetch();
    },
    onSnapshot: snapshot => snapshots.push(snapshot),
    onStatus: (status, problem) => {
      statuses.push(status);
      problems.push(problem);
    }
  });
  stream.start();
});

afterEach(() => {
  stream.dispose();
  vi.useRealTimers();
});

/** Lets the socket fail until the stream polls. */
async function degrade(): Promise<void> {
  for (let i = 0; i < FAILURES_BEFORE_POLLING; i++) {
    FakeSocket.latest.fail('gone');
    await vi.advanceTimersByTimeAsync(retryDelay(i + 1, 0));
  }
}

describe('retryDelay', () => {
  it('doubles up to a minute', () => {
    const delays = [1, 2, 3, 7, 50].map(n => retryDelay(n, 0));
    expect(delays).toEqual([1000, 2000, 4000, 60000, 60000]);
  });

  it('spreads the clients of a server that comes back', () => {
    expect(retryDelay(3, 1)).toBeCloseTo(3200);
  });
});

describe('while the socket works', () => {
  it('hands on snapshots and does not poll', async () => {
    FakeSocket.latest.accept();
    FakeSocket.latest.pushSnapshot();
    await vi.advanceTimersByTimeAsync(SILENCE_MS - 1);
    expect(snapshots).toHaveLength(1);
    expect(statuses).toEqual(['connected']);
    expect(fetched).toBe(0);
  });

  it('tells the server how often, at once and when it changes', () => {
    stream.setInterval(1);
    expect(FakeSocket.latest.sent).toEqual([]);
    FakeSocket.latest.accept();
    stream.setInterval(5);
    expect(FakeSocket.latest.sent).toEqual([{ interval: 1 }, { interval: 5 }]);
  });

  it('keeps the socket when the server says it cannot tell', () => {
    FakeSocket.latest.push({
      type: 'error',
      error: { code: 'LedgerUnavailable', message: 'no ledger', facts: {} }
    });
    expect(statuses).toEqual(['disconnected']);
    expect(problems).toEqual(['no ledger']);
    expect(FakeSocket.latest.isClosed).toBe(false);
    FakeSocket.latest.pushSnapshot();
    expect(statuses).toEqual(['disconnected', 'connected']);
  });

  it('takes a silent socket for dead', async () => {
    FakeSocket.latest.pushSnapshot();
    await vi.advanceTimersByTimeAsync(SILENCE_MS);
    expect(FakeSocket.opened[0].isClosed).toBe(true);
    await vi.advanceTimersByTimeAsync(1000);
    expect(FakeSocket.opened).toHaveLength(2);
  });
});

describe('when the socket fails', () => {
  it('says nothing of the first failure before there was data', () => {
    FakeSocket.latest.fail();
    expect(statuses).toEqual([]);
  });

  it('says at once that data is stale', () => {
    FakeSocket.latest.pushSnapshot();
    FakeSocket.latest.fail('server stopped');
    expect(statuses).toEqual(['connected', 'disconnected']);
    expect(problems[1]).toBe('server stopped');
  });

  it('polls from the second failure on', async () => {
    FakeSocket.latest.fail();
    await vi.advanceTimersByTimeAsync(1000);
    expect(fetched).toBe(0);
    FakeSocket.latest.fail();
    await vi.advanceTimersByTimeAsync(100);
    expect(fetched).toBe(1);
    expect(statuses).toEqual(['polling']);
    expect(snapshots).toHaveLength(1);
  });

  it('goes on polling, and stops when the socket is back', async () => {
    await degrade();
    await vi.advanceTimersByTimeAsync(11_000);
    expect(fetched).toBeGreaterThanOrEqual(3);
    FakeSocket.latest.pushSnapshot();
    const before = fetched;
    await vi.advanceTimersByTimeAsync(15_000);
    expect(fetched).toBe(before);
    expect(statuses[statuses.length - 1]).toBe('connected');
  });

  it('is disconnected when polling fails, too, and asks ever less', async () => {
    fetch = () => Promise.reject(new Error('no route'));
    await degrade();
    await vi.advanceTimersByTimeAsync(100);
    expect(new Set(statuses)).toEqual(new Set(['disconnected']));
    expect(problems[0]).toBe('no route');
    await vi.advanceTimersByTimeAsync(600_000);
    expect(fetched).toBeLessThan(40);
  });

  it('recovers by itself, however long nobody answered', async () => {
    fetch = () => Promise.reject(new Error('no route'));
    await degrade();
    for (let minute = 0; minute < 30; minute++) {
      FakeSocket.latest.fail('still gone');
      await vi.advanceTimersByTimeAsync(60_000);
    }
    expect(statuses[statuses.length - 1]).toBe('disconnected');
    FakeSocket.latest.accept();
    FakeSocket.latest.pushSnapshot();
    expect(statuses[statuses.length - 1]).toBe('connected');
    expect(snapshots).toHaveLength(1);
  });

  it('recovers by polling where only the socket stays away', async () => {
    fetch = () => Promise.reject(new Error('no route'));
    await degrade();
    fetch = async () => sampleSnapshot();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(statuses[statuses.length - 1]).toBe('polling');
  });

  it('counts data it cannot read as a failure', async () => {
    FakeSocket.latest.push({ type: 'snapshot', host: 7 });
    await vi.advanceTimersByTimeAsync(1000);
    FakeSocket.latest.push({ type: 'snapshot', host: 7 });
    await vi.advanceTimersByTimeAsync(100);
    expect(fetched).toBe(1);
  });

  it('starts afresh when told', async () => {
    fetch = () => Promise.reject(new Error('no route'));
    await degrade();
    await vi.advanceTimersByTimeAsync(300_000);
    const before = FakeSocket.opened.length;
    stream.start();
    expect(FakeSocket.opened).toHaveLength(before + 1);
  });
});

it('leaves nothing behind when disposed', async () => {
  stream.dispose();
  expect(FakeSocket.latest.isClosed).toBe(true);
  await vi.advanceTimersByTimeAsync(600_000);
  expect(FakeSocket.opened).toHaveLength(1);
  expect(vi.getTimerCount()).toBe(0);
});

import type { LeaseManager } from '../../api/manager';
import { StrayWatcher } from '../../notifications/straywatcher';
import type { IStray } from '../../wire/types';
import { FakeServer, FakeSocket, managerOf, sampleSnapshot } from '../fakes';

let manager: LeaseManager;
let news: string[];
let watcher: StrayWatcher;

beforeEach(() => {
  manager = managerOf(new FakeServer());
  news = [];
  watcher = new StrayWatcher(manager, {
    strayed: ({ pid, ends_at }, device) =>
      news.push(`${pid} on ${device?.index}, ${ends_at}`)
  });
});

afterEach(() => {
  watcher.dispose();
  manager.dispose();
});

function push(strays: readonly IStray[]): void {
  const snapshot = sampleSnapshot();
  snapshot.host.strays = [...strays];
  FakeSocket.latest.show(snapshot);
}

it('tells of own processes alone: once, and again when one is to be ended', () => {
  const [own, other] = sampleSnapshot().host.strays;
  const left = { ...own, ends_at: null };
  push([left, other]);
  push([left, other]);
  push([own, other]);
  push([]);
  push([left]);
  expect(news).toEqual([
    '4711 on 0, null',
    '4711 on 0, 1790000900',
    '4711 on 0, null'
  ]);
});

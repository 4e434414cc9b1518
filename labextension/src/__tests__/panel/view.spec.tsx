import * as React from 'react';
import { act } from 'react';
import { createRoot, type Root } from 'react-dom/client';

import type { LeaseManager } from '../../api/manager';
import type { IPanelActions } from '../../commands/panelactions';
import { PanelView } from '../../panel/view';
import { statusText } from '../../status/text';
import type { ISuspendCapability } from '../../wire/types';
import {
  conditionSample,
  FakeServer,
  FakeSocket,
  KERNEL,
  LOST,
  managerOf,
  PARENT_KERNEL,
  sampleSnapshot,
  suspendedSnapshot,
  trans,
  WAITING_KERNEL,
  WARM
} from '../fakes';

let manager: LeaseManager;
let node: HTMLElement;
let root: Root;
let done: string[];

const actions: IPanelActions = {
  request: () => done.push('request'),
  release: id => done.push(`release ${id}`),
  extend: id => done.push(`extend ${id}`),
  applySuspendAction: (id, verb) => done.push(`${verb} ${id}`),
  restart: id => done.push(`restart ${id}`),
  cancel: id => done.push(`cancel ${id}`),
  refresh: () => done.push('refresh'),
  drain: id => done.push(`drain ${id}`),
  undrain: id => done.push(`undrain ${id}`),
  retry: () => done.push('retry')
};

beforeEach(() => {
  manager = managerOf(new FakeServer());
  done = [];
  node = document.createElement('div');
  root = createRoot(node);
});

afterEach(() => {
  act(() => root.unmount());
  manager.dispose();
});

function show(kernelId: string | null = KERNEL): string {
  const props = { actions, extendSeconds: 1800, kernelId, manager, trans };
  act(() => root.render(<PanelView {...props} />));
  return node.textContent ?? '';
}

function pushNotice(kind: 'idle' | 'preempt', endsAt: number | null): void {
  const snapshot = sampleSnapshot();
  const { at } = snapshot.usage;
  snapshot.leases[0].ends_at = endsAt;
  snapshot.leases[0].notice = { kind, at, ends_at: at + 75, request_id: '' };
  FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
}

function click(name: string): void {
  const button = buttons().find(({ textContent }) => textContent === name);
  act(() => button?.click());
}

function buttons(): HTMLButtonElement[] {
  return Array.from(node.querySelectorAll('button'));
}

function announced(): string {
  return node.querySelector('[aria-live="polite"]')?.textContent ?? '';
}

it('says that it loads', () => {
  expect(show()).toContain('Looking for devices…');
});

it('says what is wrong when there never was data, and offers to retry', () => {
  FakeSocket.latest.push({
    type: 'error',
    error: { code: 'LedgerUnavailable', message: 'no ledger', facts: {} }
  });
  expect(show()).toContain('no ledger');
  click('Retry');
  expect(done).toEqual(['retry']);
});

describe('with data', () => {
  beforeEach(() => FakeSocket.latest.pushSnapshot());

  it('shows the slice of the notebook and acts on it', () => {
    const text = show();
    expect(text).toContain('1/4on GPU 0');
    expect(text).toContain('framework caps (advisory)');
    expect(text).toContain('✓ from inside');
    expect(text).toContain('Time left41 min');
    click('Extend');
    click('Release');
    expect(done).toEqual(['extend l-tour', 'release l-tour']);
    expect(announced()).toBe('This notebook holds a slice: 1/4');
  });

  it('shows how far a waiting notebook has come', () => {
    const text = show(WAITING_KERNEL);
    expect(text).toContain('1/2waiting, number 1');
    expect(text).toContain('the most that is free on one is 1/4');
    expect(text).toContain('expected in about 12 min');
    click('Cancel');
    expect(done).toEqual(['cancel r-waits']);
  });

  it('expects it sooner as time passes, without news', () => {
    vi.useFakeTimers();
    try {
      FakeSocket.latest.pushSnapshot();
      expect(show(WAITING_KERNEL)).toContain('expected in about 12 min');
      act(() => void vi.advanceTimersByTime(61_000));
      expect(node.textContent).toContain('expected in about 11 min');
      act(() => void vi.advanceTimersByTime(11 * 60_000));
      expect(node.textContent).toContain('expected within a minute');
    } finally {
      vi.useRealTimers();
    }
  });

  it('says nothing of when where nobody can tell', () => {
    const snapshot = sampleSnapshot();
    snapshot.queue[0].eta_at = null;
    FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
    expect(show(WAITING_KERNEL)).not.toContain('expected');
  });

  it('shows instead of its state how long a slice has been idle', () => {
    const snapshot = sampleSnapshot();
    snapshot.leases[0].active_at = snapshot.usage.at - 2040;
    FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
    expect(show()).toContain('Stateidle 34 min');
  });

  it('counts down to the end of a slice that nobody uses, and extends it', () => {
    vi.useFakeTimers();
    try {
      pushNotice('idle', null);
      expect(show()).toContain('It is reclaimed in 1 min 15 s, unless');
      expect(node.textContent).toContain('Time left1 min');
      act(() => void vi.advanceTimersByTime(30_000));
      expect(node.textContent).toContain('It is reclaimed in 45 s, unless');
      expect(node.textContent).toContain('keeps running, on the CPU');
      expect(announced()).toBe('The slice 1/4 is idle; it will be reclaimed');
      click('Extend');
      expect(done).toEqual(['extend l-tour']);
    } finally {
      vi.useRealTimers();
    }
  });

  it('does not offer to extend what others need', () => {
    pushNotice('preempt', 1790004950);
    expect(show()).toContain(
      'This slice is preempted in 1 min 15 s and cannot be'
    );
    expect(node.textContent).toContain('Time left1 min');
    const extend = buttons().find(b => b.textContent === 'Extend');
    expect(extend?.disabled).toBe(true);
    expect(extend?.title).toContain('higher-priority request');
    expect(statusText(manager, KERNEL, trans)).toContain('preempted in 1 min');
  });

  it('says of a slice that it may be preempted', () => {
    expect(show()).not.toContain('Preemptible');
    const snapshot = sampleSnapshot();
    snapshot.leases[0].preemptible = true;
    FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
    expect(show()).toContain('Preemptibleyes');
  });

  it('says up to what a slice may be used, and how much now', () => {
    expect(show()).not.toContain('up to');
    const snapshot = sampleSnapshot();
    const [lease] = snapshot.leases;
    lease.up_to = '1';
    lease.residence = null;
    lease.limits = [
      {
        device_id: lease.slices[0].device_id,
        fraction: '3/4',
        memory_bytes: 3 * lease.slices[0].memory_bytes,
        cores: []
      }
    ];
    FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
    expect(show()).toContain('Share1/4, up to 1/1, now 3/4');
    expect(node.textContent).toContain('/ 60 GiB');
    expect(statusText(manager, KERNEL, trans)).toContain('/ 60 GiB');
  });

  it('lists reservations, and has no place for them where there are none', () => {
    expect(show()).toContain('Reservationsdeep learning class12 × 1/8');
    const snapshot = sampleSnapshot();
    snapshot.host.reservations = [];
    FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
    expect(show()).not.toContain('Reservations');
  });

  it('offers a request to a notebook without a slice', () => {
    show('a-third');
    click('Request…');
    expect(done).toEqual(['request']);
  });

  it('asks for a notebook first where there is none', () => {
    expect(show(null)).toContain('Open a notebook');
    const request = buttons().find(b => b.textContent === 'Request…');
    expect(request?.disabled).toBe(true);
  });

  it('lets a notebook release the slices of its workers', () => {
    show(PARENT_KERNEL);
    click('Release');
    expect(done).toEqual(['release l-worker']);
  });

  it('offers no button on what belongs to others', () => {
    show('a-third');
    expect(buttons().map(({ textContent }) => textContent)).toEqual([
      '',
      'Request…'
    ]);
  });

  it('shows problems of the host', () => {
    expect(show()).toContain('⚠ gpu: no driver answers');
  });

  it('keeps stale data, greyed, and lets nobody act on it', () => {
    FakeSocket.latest.fail();
    expect(show()).toMatch(/Disconnected, last seen \d+ s ago/);
    expect(node.querySelector('.jp-mod-stale')).not.toBeNull();
    const release = buttons().find(b => b.textContent === 'Release');
    expect(release?.disabled).toBe(true);
  });

  it.each([
    ['newer', (device: Record<string, unknown>) => (device.kind = 'tpu')],
    ['older', (device: Record<string, unknown>) => delete device.memory_bytes]
  ])('says what to do where the server is %s than the page', (_, change) => {
    const snapshot = structuredClone(sampleSnapshot());
    change(snapshot.host.devices[0] as unknown as Record<string, unknown>);
    FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
    const shown = show();
    expect(shown).toMatch(/Disconnected, last seen \d+ s ago/);
    expect(shown).toContain('different versions of jupyter_aistack');
    expect(shown).toContain('reload the page, or restart the server');
    expect(shown).toContain('host.devices[0]');
  });

  it('acts again as soon as the connection is back, untouched', () => {
    vi.useFakeTimers();
    try {
      FakeSocket.latest.fail();
      expect(show()).toContain('Disconnected');
      act(() => void vi.advanceTimersByTime(1000));
      FakeSocket.latest.pushSnapshot();
      expect(show()).not.toContain('Disconnected');
      click('Release');
      expect(done).toEqual(['release l-tour']);
    } finally {
      vi.useRealTimers();
    }
  });

  it('does not announce telemetry', () => {
    show();
    const before = announced();
    const snapshot = sampleSnapshot();
    snapshot.usage.leases['l-tour'].memory_bytes = 1;
    FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
    show();
    expect(announced()).toBe(before);
  });

  it('sums it up for the status bar', () => {
    expect(statusText(manager, KERNEL, trans)).toBe(
      'GPU 1/4 · 6.2 / 20 GiB · 41 min · simulated'
    );
    expect(statusText(manager, WAITING_KERNEL, trans)).toBe(
      '1/2 waiting, number 1 · expected in about 12 min'
    );
    expect(statusText(manager, 'a-third', trans)).toBe('no slice');
  });
});

describe('a slice that may be suspended', () => {
  function card(): string {
    return node.querySelector('.jp-AIStack-card')?.textContent ?? '';
  }

  function button(name: string): HTMLButtonElement | undefined {
    return buttons().find(({ textContent }) => textContent === name);
  }

  it('is warm, and can be suspended or pinned', () => {
    FakeSocket.latest.show(suspendedSnapshot(WARM));
    expect(show()).toContain('warmIdle; suspended when its memory is needed');
    expect(card()).toContain('6.2 / 20 GiB');
    click('Suspend');
    click('Pin');
    expect(done).toEqual(['suspend l-tour', 'pin l-tour']);
    expect(announced()).toBe('This notebook holds a slice: 1/4');
    expect(statusText(manager, KERNEL, trans)).toContain('6.2 / 20 GiB · warm');
  });

  it('says where its state is while it is suspended, and shows no memory of the device', () => {
    FakeSocket.latest.show(suspendedSnapshot());
    show();
    expect(card()).toContain(
      'suspended9 GiB in host memory; comes back when a cell needs it.'
    );
    expect(card()).not.toContain('6.2 / 20 GiB');
    click('Resume');
    expect(done).toEqual(['resume l-tour']);
    expect(announced()).toContain('is suspended; it comes back when a cell');
    expect(statusText(manager, KERNEL, trans)).toBe(
      'GPU 1/4 · suspended · 9 GiB in host memory · 41 min · simulated'
    );
  });

  it('counts for how long it has waited to come back', () => {
    vi.useFakeTimers();
    try {
      const { at } = sampleSnapshot().usage;
      FakeSocket.latest.show(suspendedSnapshot({ wanted_at: at - 12 }));
      show();
      expect(card()).toContain('has waited 12 s for capacity');
      act(() => void vi.advanceTimersByTime(5000));
      expect(card()).toContain('has waited 17 s for capacity');
      expect(button('Resume')?.disabled).toBe(true);
      expect(button('Resume')?.title).toContain('about to come back');
    } finally {
      vi.useRealTimers();
    }
  });

  it('is held while a cell runs, and cannot be suspended then', () => {
    const held = { ...WARM, is_busy: true, standing: 'held' as const };
    FakeSocket.latest.show(suspendedSnapshot(held));
    expect(show()).toContain('heldA cell uses it.');
    expect(button('Suspend')?.disabled).toBe(true);
    expect(button('Suspend')?.title).toBe('A cell uses it');
  });

  it('says why it is pinned, to eyes and ears, and is unpinned by whoever has pinned it', () => {
    const pinned = { ...WARM, standing: 'pinned' as const, why: 'NCCL runs' };
    FakeSocket.latest.show(suspendedSnapshot(pinned));
    expect(show()).toContain('pinnedStays on its device: NCCL runs');
    const badge = node.querySelector('.jp-AIStack-standing.jp-mod-pinned');
    expect(badge?.getAttribute('title')).toContain('NCCL runs');
    expect(button('Suspend')?.title).toBe('It must stay: NCCL runs');
    expect(button('Pin')?.disabled).toBe(false);
    FakeSocket.latest.show(suspendedSnapshot({ ...pinned, is_kept: true }));
    show();
    click('Unpin');
    expect(done).toEqual(['unpin l-tour']);
  });

  it('offers nothing but a restart once it is lost', () => {
    FakeSocket.latest.show(suspendedSnapshot(LOST));
    show();
    expect(card()).toContain(
      'lostWhat it kept on its device is lost: the helper ended while it moved. Restart the kernel.'
    );
    expect(button('Suspend')).toBeUndefined();
    click('Restart Kernel…');
    expect(done).toEqual([`restart ${KERNEL}`]);
    expect(announced()).toContain('is lost; restart the kernel');
    expect(statusText(manager, KERNEL, trans)).toContain('state lost');
  });

  it('cannot be acted on while nothing is known', () => {
    FakeSocket.latest.show(suspendedSnapshot());
    FakeSocket.latest.fail();
    show();
    expect(button('Resume')?.disabled).toBe(true);
    expect(button('Pin')?.disabled).toBe(true);
  });
});

it('does not let a slice that nothing holds be overlooked', () => {
  const snapshot = sampleSnapshot();
  const why = 'the process sees 80.0 GiB of memory instead of 20.0 GiB';
  const conditions = [conditionSample('NotEnforced', 'error', why)];
  Object.assign(snapshot.leases[0], { conditions, verified: false });
  FakeSocket.latest.show(snapshot);
  show();
  const problem = node.querySelector('.jp-AIStack-card .jp-AIStack-problem');
  expect(problem?.textContent).toBe(
    '⚠ Not enforced: the process sees 80.0 GiB of memory instead of 20.0 GiB'
  );
  expect(announced()).toBe('The slice 1/4 is not enforced');
  expect(statusText(manager, KERNEL, trans)).toContain(
    'GPU 1/4 · not enforced'
  );
});

it('shows a line for each condition, gravest first', () => {
  const snapshot = sampleSnapshot();
  snapshot.leases[0].conditions = [
    conditionSample('MemoryExceeded', 'error', '21 of 20 GiB'),
    conditionSample('MemoryPressure', 'warning', '19 of 20 GiB'),
    conditionSample('EnforcementReduced', 'info', 'MPS is off'),
    conditionSample('Note', 'info', 'on the device of its twin')
  ];
  FakeSocket.latest.show(snapshot);
  show();
  const texts = (selector: string): string[] =>
    Array.from(
      node.querySelectorAll(`.jp-AIStack-card ${selector}`),
      line => line.textContent ?? ''
    );
  expect(texts('.jp-AIStack-problem')).toEqual([
    '⚠ Over its memory: 21 of 20 GiB'
  ]);
  expect(texts('.jp-AIStack-warning')).toEqual([
    '⚠ Near its memory: 19 of 20 GiB'
  ]);
  expect(texts('.jp-AIStack-figures')).toEqual(
    expect.arrayContaining([
      'Enforced at a lower level than available: MPS is off',
      'On the device of its twin'
    ])
  );
  expect(announced()).toBe('The slice 1/4 is over its memory');
  expect(statusText(manager, KERNEL, trans)).toContain('· over its memory ·');
});

it('says of a slice that cannot be verified that it cannot, without a warning', () => {
  const snapshot = sampleSnapshot();
  const conditions = [conditionSample('NotVerified', 'info', 'no tool here')];
  Object.assign(snapshot.leases[0], { conditions, verified: null });
  FakeSocket.latest.show(snapshot);
  expect(show()).toContain('Verifiedno tool here');
  expect(node.querySelector('.jp-AIStack-card .jp-AIStack-problem')).toBeNull();
  expect(node.querySelector('.jp-AIStack-card .jp-AIStack-warning')).toBeNull();
});

it.each([
  [0.89, 'fits', ''],
  [0.91, 'near', ', nearly full'],
  [1.01, 'over', ', more than granted']
])('says in words, too, how full the memory is (%d)', (share, mark, words) => {
  const snapshot = sampleSnapshot();
  const total = snapshot.leases[0].slices[0].memory_bytes;
  snapshot.usage.leases['l-tour'].memory_bytes = Math.round(total * share);
  FakeSocket.latest.show(snapshot);
  show();
  const meter = node.querySelector('.jp-AIStack-card [role="meter"]');
  expect(meter?.classList).toContain(`jp-mod-${mark}`);
  expect(meter?.getAttribute('aria-valuetext')).toMatch(
    new RegExp(`20 GiB${words}$`)
  );
});

it.each([
  [null, ''],
  [{ tier: 'checkpoint', why: '' }, 'give their memory back: by driver'],
  [{ tier: 'offload', why: '' }, 'give back what they have registered'],
  [{ tier: 'offload', why: 'no driver' }, 'they have registered: no driver'],
  [{ tier: 'simulated', why: '' }, 'give their memory back: simulated'],
  [
    { tier: 'off', why: 'driver 535 is too old' },
    'keep their memory: driver 535'
  ]
] as [ISuspendCapability | null, string][])(
  'says what becomes of idle notebooks on this host (%o)',
  (suspend, text) => {
    const snapshot = sampleSnapshot();
    snapshot.host.suspend = suspend;
    FakeSocket.latest.show(snapshot);
    show();
    const line = node.querySelector('.jp-AIStack-suspension')?.textContent;
    expect(line ?? '').toContain(text);
    expect(line === undefined).toBe(suspend === null);
  }
);

it('says so when a host has no devices', () => {
  const snapshot = sampleSnapshot();
  snapshot.host.devices = [];
  snapshot.queue = [];
  FakeSocket.latest.push({ type: 'snapshot', ...snapshot });
  const text = show();
  expect(text).toContain('No device was found on this host.');
  expect(text).toContain('No requests are waiting.');
});

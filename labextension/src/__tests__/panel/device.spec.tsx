import * as React from 'react';
import { renderToStaticMarkup } from 'react-dom/server';

import { DeviceBlock, type IDeviceProps } from '../../panel/device';
import { segments, type ISegment } from '../../panel/segments';
import type { IDeviceState } from '../../wire/types';
import {
  conditionSample,
  KERNEL,
  LOST,
  PARENT_KERNEL,
  sampleSnapshot,
  suspendedSnapshot,
  trans,
  WARM
} from '../fakes';

function props(index = 0, kernelId: string | null = KERNEL): IDeviceProps {
  const { host, leases, usage } = sampleSnapshot();
  const now = usage.at;
  const device = host.devices[index];
  const actions = { drain: () => undefined, undrain: () => undefined };
  const shown = { device, host, leases, usage, kernelId, now };
  return { ...shown, actions, online: true, trans };
}

function cut(given: IDeviceProps): ISegment[] {
  const { device, leases, kernelId } = given;
  return segments(device, leases, kernelId, trans);
}

function render(given: IDeviceProps): HTMLElement {
  const page = document.createElement('div');
  page.innerHTML = renderToStaticMarkup(<DeviceBlock {...given} />);
  return page;
}

function row(page: HTMLElement, leaseId: string): string {
  const found = page.querySelector(
    `.jp-AIStack-slice[data-lease-id="${leaseId}"]`
  );
  return found?.textContent ?? '';
}

describe('segments', () => {
  it('are slices by age, then strangers, then what is free', () => {
    const kinds = cut(props()).map(part => [part.kind, part.label]);
    expect(kinds).toEqual([
      ['own', 'tour.ipynb'],
      ['other', 'worker:worker-0'],
      ['foreign', 'others, without a lease'],
      ['free', '1/4 free']
    ]);
  });

  it('are as wide as their share and fill the bar', () => {
    const shares = cut(props()).map(part => part.share);
    expect(shares).toEqual([0.25, 0.5, 0.05, expect.closeTo(0.2)]);
  });

  it('are drawn to scale when strangers sit on leased memory', () => {
    const given = props();
    given.device.foreign_memory_bytes = given.device.memory_bytes / 2;
    const shares = cut(given).map(part => part.share);
    expect(shares.reduce((a, b) => a + b, 0)).toBeCloseTo(1);
    expect(shares).toEqual([0.2, 0.4, 0.4]);
  });

  it('do not call free what cannot be had', () => {
    const labels = [props(1), props(2)].map(given => cut(given)[0].label);
    expect(labels).toEqual(['not available', 'free']);
  });

  it('are own for the workers of the kernel, too', () => {
    const own = cut(props(0, PARENT_KERNEL)).filter(
      part => part.kind === 'own'
    );
    expect(own.map(part => part.leaseId)).toEqual(['l-worker']);
  });

  it('leave out leases that have ended', () => {
    expect(cut(props(1)).map(part => part.kind)).toEqual(['free']);
  });
});

describe('a slice that may be suspended', () => {
  function suspended(changes: Partial<IDeviceState> = {}): IDeviceProps {
    return { ...props(), leases: suspendedSnapshot(changes).leases };
  }

  it('takes no room while it is away, and is listed all the same', () => {
    expect(cut(suspended()).map(part => part.kind)).toEqual([
      'other',
      'foreign',
      'free'
    ]);
    expect(row(render(suspended()), 'l-tour')).toBe(
      'tour.ipynbyours1/4suspended 9 GiB in host memory; comes back when a cell needs it.'
    );
  });

  it('takes its room again as soon as it is on its way', () => {
    const back = suspended({ phase: 'restoring' });
    expect(cut(back)[0].leaseId).toBe('l-tour');
    expect(row(render(back), 'l-tour')).toContain('on its way back');
  });

  it('has its room promised to it as soon as a cell waits for it', () => {
    const waits = suspended({ wanted_at: props().now - 5 });
    expect(cut(waits)[0].leaseId).toBe('l-tour');
    expect(row(render(waits), 'l-tour')).toContain(
      'has waited 5 s for capacity'
    );
  });

  it('has nothing to bring back after a restart', () => {
    expect(row(render(suspended({ state_bytes: 0 })), 'l-tour')).toContain(
      'Nothing on its device; its capacity comes back when a cell needs it.'
    );
  });

  it('says how it stands beside what it uses', () => {
    expect(row(render(suspended(WARM)), 'l-tour')).toContain(
      '6.2 / 20 GiB · 41 % · 41 minwarmIdle; suspended when'
    );
  });

  it('says that it is lost', () => {
    expect(cut(suspended(LOST)).map(part => part.leaseId)).not.toContain(
      'l-tour'
    );
    expect(row(render(suspended(LOST)), 'l-tour')).toContain(
      'lost What it kept on its device is lost: the helper'
    );
  });
});

describe('what holds shares of a device', () => {
  function level(page: HTMLElement): string[] {
    const found = page.querySelectorAll(
      '.jp-AIStack-level > *, .jp-AIStack-level dl > *'
    );
    return Array.from(found, ({ textContent }) => textContent ?? '');
  }

  it('is said with why nothing stronger does, strongest first', () => {
    const given = props();
    const why_not = { L2: 'the driver is 565', L4: 'MIG is off', L9: 'new' };
    Object.assign(given.device, { level: 'L1', why_not, advice: '' });
    expect(level(render(given)).join('|')).toBe(
      'Shares are enforced by the driver: MPS (L1)|L4MIG is offL2the driver is 565|L4|MIG is off|L2|the driver is 565'
    );
  });

  it('never is called more than advisory where only good will holds', () => {
    const given = props();
    Object.assign(given.device, { level: 'L0', why_not: {}, advice: '' });
    expect(render(given).textContent).toContain(
      'Shares are advisory: framework caps (L0)'
    );
    expect(render(given).querySelector('details')).toBeNull();
  });

  it('is not made up where it is not known, or there are no shares', () => {
    const given = props();
    Object.assign(given.device, { level: null, why_not: {}, advice: '' });
    expect(render(given).textContent).not.toContain('Shares');
    given.device.level = 'simulated';
    expect(render(given).textContent).not.toContain('Shares');
  });

  it('is nothing where none can be granted, which is explained', () => {
    const given = props();
    const advice = 'make a MIG instance';
    const why_not = { L4: 'no instance' };
    Object.assign(given.device, { level: null, why_not, advice });
    expect(level(render(given))[0]).toBe('No share of it can be granted');
    expect(render(given).textContent).toContain(advice);
  });
});

describe('what can be had of a device', () => {
  it('is not said of an ordinary one', () => {
    const text = render(props()).textContent;
    expect(text).not.toContain('whole only');
    expect(text).not.toContain('on demand');
  });

  it('is said where it is only the whole, or more than shares', () => {
    const given = props();
    given.device.is_divisible = false;
    expect(render(given).textContent).toContain('Granted whole only');
    const mig_offers = ['1g.18gb', '2g.35gb'];
    Object.assign(given.device, { is_divisible: true, mig_offers });
    expect(render(given).textContent).toContain(
      'MIG on demand: 1g.18gb, 2g.35gb'
    );
  });
});

describe('a slice that is not what was granted', () => {
  it('says so and why', () => {
    const given = props();
    const conditions = [conditionSample('NotEnforced', 'error', 'x')];
    Object.assign(given.leases[0], { verified: false, conditions });
    expect(row(render(given), 'l-tour')).toMatch(/not enforced x$/);
  });
});

describe('a device', () => {
  it('says all of it in words, too', () => {
    const bar = render(props()).querySelector('.jp-AIStack-bar');
    expect(bar?.getAttribute('aria-label')).toBe(
      'GPU 0: tour.ipynb 1/4, worker:worker-0 1/2, others, without a lease, 1/4 free'
    );
  });

  it('shows memory, utilisation and age of a slice', () => {
    expect(row(render(props()), 'l-tour')).toBe(
      'tour.ipynbyours1/46.2 / 20 GiB · 41 % · 41 min'
    );
  });

  it('never shows a number where none is known', () => {
    const page = render(props());
    expect(row(page, 'l-worker')).toContain('n/a of 40 GiB · n/a');
    expect(row(page, 'l-worker')).not.toContain('%');
    expect(
      page.querySelector('[data-lease-id="l-worker"] [role="meter"]')
    ).toBeNull();
  });

  it('tells which slices nobody uses', () => {
    const given = props();
    const badge = (page: HTMLElement): string[] =>
      Array.from(page.querySelectorAll('.jp-mod-idle'), b => b.textContent!);
    expect(badge(render(given))).toEqual(['idle 24 min']);
    expect(row(render(given), 'l-worker')).toContain('idle 24 min');
    expect(badge(render({ ...given, now: given.now + 580 }))).toHaveLength(2);
  });

  it('has a meter that screen readers can read', () => {
    const meter = render(props()).querySelector('[role="meter"]');
    expect(meter?.getAttribute('aria-valuetext')).toBe('6.2 / 20 GiB');
    expect(meter?.getAttribute('aria-label')).toBe('Memory of tour.ipynb');
  });

  it('tells of strangers', () => {
    const stranger = render(props()).querySelector('.jp-AIStack-foreign');
    expect(stranger?.textContent).toBe('others, without a lease4 GiB');
  });

  it('does not take strangers who cannot be told apart for none', () => {
    const given = props();
    given.device.foreign_memory_bytes = null;
    const stranger = render(given).querySelector('.jp-AIStack-foreign');
    expect(stranger?.textContent).toBe('others, without a leasen/a');
  });

  it('warns of a problem and marks what is simulated', () => {
    const sick = render(props(1)).textContent;
    expect(sick).toContain('⚠ the driver reports a pending reset');
    expect(
      render(props(1)).querySelector('.jp-AIStack-problem')
    ).not.toBeNull();
    expect(sick).toContain('simulated');
    expect(render(props(2)).textContent).not.toContain('simulated');
  });
});

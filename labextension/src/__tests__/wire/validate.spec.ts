import { list, text, type Decoder } from '../../wire/decoders';
import { WireError } from '../../wire/errors';
import * as validate from '../../wire/validate';
import { samples } from '../fakes';

const sample = samples();

const NEW_DEVICE_KEYS = [
  'level',
  'why_not',
  'advice',
  'mig_offers',
  'vendor',
  'is_divisible'
];

interface IRawHost {
  devices: Record<string, unknown>[];
  queues: Record<string, unknown>[];
  suspend?: unknown;
}

describe('the samples shared with the server', () => {
  it.each([
    ['host', validate.host],
    ['leases', list(validate.lease)],
    ['queue', list(validate.request)],
    ['usage', validate.usage],
    ['events', list(validate.event)],
    ['prepared', validate.preparation]
  ] as [string, Decoder<unknown>][])(
    '%s passes and loses nothing',
    (name, decode) => {
      expect(decode(sample[name], name)).toMatchObject(sample[name] as object);
    }
  );

  it('an error passes, whatever else Jupyter adds to it', () => {
    const { code, message, facts } = validate.error(sample.error, '');
    expect(sample.error).toMatchObject({ code, message, facts });
  });
});

describe('what is not as agreed', () => {
  it.each([
    ['leases[0].token', (lease: Record<string, unknown>) => delete lease.token],
    ['leases[0].state', lease => (lease.state = 'asleep')],
    ['leases[0].holder', lease => (lease.holder = null)],
    ['leases[0].slices', lease => (lease.slices = {})],
    ['leases[0].granted_at', lease => (lease.granted_at = '12:00')],
    ['leases[0].notice.kind', lease => (lease.notice = { kind: 'late' })],
    ['leases[0].outcome', lease => (lease.outcome = 'lost')],
    ['leases[0].verified', lease => (lease.verified = 'yes')],
    [
      'leases[0].residence.phase',
      lease => (lease.residence = { phase: 'upstairs' })
    ]
  ] as [string, (lease: Record<string, unknown>) => unknown][])(
    'is refused by name: %s',
    (path, spoil) => {
      const broken = samples();
      spoil((broken.leases as Record<string, unknown>[])[0]);
      expect(() => validate.snapshot(broken, '')).toThrow(WireError);
      expect(() => validate.snapshot(broken, '')).toThrow(path);
    }
  );

  it('does not fill the page with it', () => {
    expect(() => text({ long: 'x'.repeat(500) }, 'a')).toThrow(
      /\(a: expected text, got .{60}\)/
    );
  });

  it.each([
    ['host.devices[0].level', ({ devices }) => (devices[0].level = 'L5')],
    [
      'host.devices[0].why_not.L4',
      ({ devices }) => (devices[0].why_not = { L4: 7 })
    ],
    ['host.suspend.tier', host => (host.suspend = { tier: 'magic', why: '' })]
  ] as [string, (host: IRawHost) => unknown][])(
    'is refused by name of a host, too: %s',
    (path, spoil) => {
      const broken = samples();
      spoil(broken.host as IRawHost);
      expect(() => validate.snapshot(broken, '')).toThrow(path);
    }
  );

  it('what an older server does not send is unknown, not wrong', () => {
    const old = samples();
    const host = old.host as IRawHost;
    host.devices.forEach(device => {
      NEW_DEVICE_KEYS.forEach(key => delete device[key]);
    });
    host.queues.forEach(queue => delete queue.suspend);
    delete host.suspend;
    (old.leases as Record<string, unknown>[]).forEach(
      lease => delete lease.residence
    );
    const read = validate.snapshot(old, '');
    expect(read.host.suspend).toBeNull();
    expect(read.host.devices[0]).toMatchObject({
      level: null,
      why_not: {},
      advice: ''
    });
    expect(read.host.devices[0]).toMatchObject({
      mig_offers: [],
      vendor: '',
      is_divisible: true
    });
    expect(read.host.queues[0].suspend).toBe(false);
    expect(read.leases[0].residence).toBeNull();
    const answer = { request: (old.queue as unknown[])[0], lease: null };
    expect(validate.requested(answer, '').advice).toBe('');
  });

  it('null and absent are the same where null is allowed', () => {
    const use = { memory_bytes: 1, utilization: null, power_watts: null };
    const usage = { at: 0, devices: { d: use }, leases: {} };
    expect(validate.usage(usage, '').devices.d.energy_joules).toBeNull();
  });
});

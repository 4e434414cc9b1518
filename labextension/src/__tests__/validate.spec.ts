import { WireError } from '../errors';
import * as validate from '../validate';
import { samples } from './fakes';

const sample = samples();

describe('the samples shared with the server', () => {
  it.each([
    ['host', validate.host],
    ['leases', validate.list(validate.lease)],
    ['queue', validate.list(validate.request)],
    ['usage', validate.usage],
    ['events', validate.list(validate.event)],
    ['prepared', validate.prepared]
  ] as [string, validate.Decoder<unknown>][])(
    '%s passes and loses nothing',
    (name, decode) => {
      expect(decode(sample[name], name)).toEqual(sample[name]);
    }
  );

  it('an error passes, whatever else Jupyter adds to it', () => {
    const { code, message, facts } = validate.errorBody(sample.error, '');
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
    ['leases[0].verified', lease => (lease.verified = 'yes')]
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
    expect(() => validate.text({ long: 'x'.repeat(500) }, 'a')).toThrow(
      /\(a: expected text, got .{60}\)/
    );
  });

  it('null and absent are the same where null is allowed', () => {
    const use = { memory_bytes: 1, utilization: null, power_watts: null };
    const usage = { at: 0, devices: { d: use }, leases: {} };
    expect(validate.usage(usage, '').devices.d.energy_joules).toBeNull();
  });
});

import { formatSince, healthTitle, severityTitle } from '../../text/health';
import { trans } from '../fakes';

it('names what is known, and shows the code of what a newer server knows', () => {
  expect(healthTitle('XidError', trans)).toBe('Xid error');
  expect(healthTitle('PowerBrake', trans)).toBe(
    'Slowed down by its power supply'
  );
  expect(healthTitle('Haunted', trans)).toBe('Haunted');
});

it('says how grave it is and for how long', () => {
  expect(severityTitle('warning', trans)).toBe('warning');
  expect(formatSince(100, 280, trans)).toBe('for 3 min');
  expect(formatSince(100, 90, trans)).toBe('for 0 s');
});

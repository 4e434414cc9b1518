import { formatWindow } from '../../text/window';
import { trans } from '../fakes';

const TUESDAY = 1790071200; // 2026-09-22 10:00 UTC
const HOUR = 3600;
const DAY = 24 * HOUR;

function shown(hours: number, before: number, timeZone = 'UTC'): string {
  const calendar = { locale: 'en-GB', timeZone };
  const end = TUESDAY + hours * HOUR;
  return formatWindow(TUESDAY, end, TUESDAY - before, trans, calendar);
}

it.each([
  [2, DAY, 'UTC', 'Tuesday 10:00–12:00'],
  [2, -HOUR, 'UTC', 'today 10:00–12:00'],
  [2, 7 * DAY, 'UTC', 'Tue 22 Sept 10:00–12:00'],
  [2, DAY, 'Asia/Tokyo', 'Tuesday 19:00–21:00'],
  [20, DAY, 'UTC', 'Tuesday 10:00 – Wednesday 06:00'],
  [14, DAY, 'UTC', 'Tuesday 10:00 – Wednesday 00:00']
])('%d h, seen %d s before in %s', (hours, before, zone, text) => {
  expect(shown(hours, before, zone)).toBe(text);
});

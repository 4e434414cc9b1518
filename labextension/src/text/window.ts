/** Hours of a calendar, for people. */

import type { TranslationBundle } from '@jupyterlab/translation';

const DAY_SECONDS = 86_400;
/** From here on a weekday alone could be taken for an earlier one. */
const FAR_SECONDS = 6 * DAY_SECONDS;

/** Whose calendar it is; that of the browser where nothing else is given. */
export interface ICalendar {
  locale?: string;
  timeZone?: string;
}

/** Such as "Tuesday 10:00–12:00", with a date where the weekday would not do; all in seconds since the epoch. */
export function formatWindow(
  startsAt: number,
  endsAt: number,
  now: number,
  trans: TranslationBundle,
  calendar: ICalendar = {}
): string {
  const start = dayOf(startsAt, now, trans, calendar);
  const end = dayOf(endsAt, now, trans, calendar);
  const [from, to] = [timeOf(startsAt, calendar), timeOf(endsAt, calendar)];
  return isSameDay(startsAt, endsAt, calendar)
    ? `${start} ${from}–${to}`
    : `${start} ${from} – ${end} ${to}`;
}

/** Such as "today 10:00", with a date where the weekday would not do. */
export function formatMoment(
  at: number,
  now: number,
  trans: TranslationBundle,
  calendar: ICalendar = {}
): string {
  return `${dayOf(at, now, trans, calendar)} ${timeOf(at, calendar)}`;
}

function dayOf(
  at: number,
  now: number,
  trans: TranslationBundle,
  calendar: ICalendar
): string {
  if (isSameDay(at, now, calendar)) {
    return trans.__('today');
  }
  return Math.abs(at - now) < FAR_SECONDS
    ? format(at, calendar, { weekday: 'long' })
    : format(at, calendar, {
        weekday: 'short',
        day: 'numeric',
        month: 'short'
      });
}

function timeOf(at: number, calendar: ICalendar): string {
  return format(at, calendar, {
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23'
  });
}

function isSameDay(a: number, b: number, calendar: ICalendar): boolean {
  const date = { day: 'numeric', month: 'numeric', year: 'numeric' } as const;
  return format(a, calendar, date) === format(b, calendar, date);
}

function format(
  at: number,
  { locale, timeZone }: ICalendar,
  options: Intl.DateTimeFormatOptions
): string {
  return new Intl.DateTimeFormat(locale, { ...options, timeZone }).format(
    at * 1000
  );
}

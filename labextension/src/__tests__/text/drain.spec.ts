import { drainText, mayDrain } from '../../text/drain';
import type { IDrain } from '../../wire/types';
import { sampleSnapshot, trans } from '../fakes';

const NOON = Date.UTC(2026, 10, 28, 12) / 1000;
const UTC = { locale: 'en-GB', timeZone: 'UTC' };
const drain: IDrain = {
  kind: 'drain',
  reason: '',
  until: null,
  since: NOON,
  created_by: ''
};

it('says why a device is not granted, until when and by whom', () => {
  expect(drainText(drain, NOON, trans, UTC)).toBe('Drained');
  const timed = {
    ...drain,
    until: NOON + 3600,
    created_by: 'ops',
    reason: 'fan'
  };
  expect(drainText(timed, NOON, trans, UTC)).toBe(
    'Drained until today 13:00 by ops: fan'
  );
  const sick: IDrain = { ...drain, kind: 'quarantine' };
  expect(drainText(sick, NOON, trans, UTC)).toBe('In quarantine');
});

it('is for operators and admins', () => {
  const { host } = sampleSnapshot();
  const may = (...roles: string[]): boolean => mayDrain({ ...host, roles });
  expect([may('user'), may('user', 'manager')]).toEqual([false, false]);
  expect([may('user', 'operator'), may('admin')]).toEqual([true, true]);
});

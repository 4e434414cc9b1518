import {
  formatBytes,
  formatBytesOf,
  formatCountdown,
  formatDuration,
  formatEnergy,
  formatPercent,
  holderName,
  parseFraction
} from '../../text/format';
import type { IHolder } from '../../wire/types';

const holder: IHolder = {
  kind: 'worker',
  id: '0123456789abcdef',
  user: 'ann',
  host: 'box',
  pid: 1,
  root_pid: 1,
  label: '',
  parent: ''
};

describe('formatBytes', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1536, '1.5 KiB'],
    [21474836480, '20 GiB'],
    [10468982784, '9.8 GiB'],
    [2 ** 40, '1 TiB']
  ])('%d is %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  it('names both amounts in the unit of the whole', () => {
    expect(formatBytesOf(6657199309, 21474836480)).toBe('6.2 / 20 GiB');
    expect(formatBytesOf(0, 21474836480)).toBe('0 / 20 GiB');
  });
});

it.each([
  [0, '0 Wh'],
  [0.04, '0 Wh'],
  [9.94, '9.9 Wh'],
  [999, '999 Wh'],
  [1234, '1.2 kWh'],
  [25_000, '25 kWh']
])('%d watt-hours are %s', (wattHours, text) =>
  expect(formatEnergy(wattHours)).toBe(text)
);

describe('formatDuration', () => {
  it.each([
    [-5, '0 s'],
    [59.9, '59 s'],
    [60, '1 min'],
    [2520, '42 min'],
    [3600, '1 h'],
    [7500, '2 h 5 min'],
    [86400, '1 d'],
    [100000, '1 d 3 h']
  ])('%d s is %s', (seconds, text) =>
    expect(formatDuration(seconds)).toBe(text)
  );
});

describe('formatCountdown', () => {
  it.each([
    [-5, '0 s'],
    [44.2, '45 s'],
    [60, '1 min'],
    [249.5, '4 min 10 s'],
    [3599, '59 min']
  ])('%d s is %s', (seconds, text) =>
    expect(formatCountdown(seconds)).toBe(text)
  );
});

describe('formatPercent', () => {
  it('does not make a number of what is not known', () => {
    expect(formatPercent(null)).toBeNull();
    expect(formatPercent(0)).toBe('0 %');
    expect(formatPercent(0.414)).toBe('41 %');
  });
});

describe('parseFraction', () => {
  it.each([
    ['1/4', 0.25],
    ['1', 1],
    ['0.5', 0.5],
    ['1/0', 0],
    ['1g.10gb', 0],
    ['', 0]
  ])('%s is %d', (text, value) => expect(parseFraction(text)).toBe(value));
});

describe('holderName', () => {
  it('is the name of the notebook', () => {
    expect(holderName({ ...holder, label: 'work/deep/tour.ipynb' })).toBe(
      'tour.ipynb'
    );
  });

  it('is kind and id where there is no notebook', () => {
    expect(holderName(holder)).toBe('worker:01234567');
  });

  it('is the user where the rest is kept from us', () => {
    expect(holderName({ ...holder, id: '', user: 'someone' })).toBe('someone');
  });
});

import {
  afterEndText,
  canExtend,
  exactTimeLeft,
  extendText,
  noticeText,
  roundedTimeLeft
} from '../../text/notice';
import type { ILease, INotice } from '../../wire/types';
import { sampleSnapshot, trans } from '../fakes';

const idle: INotice = { kind: 'idle', at: 0, ends_at: 300, request_id: '' };
const preempt: INotice = { ...idle, kind: 'preempt', request_id: 'r-urgent' };
const [sample, worker] = sampleSnapshot().leases;

function lease(notice: INotice | null, ends_at: number | null): ILease {
  return { ...sample, notice, ends_at };
}

describe('extending', () => {
  it.each([
    [null, 5000, true, 'Keep it for 1 h more'],
    [null, null, false, 'It has no end that could be moved'],
    [idle, null, true, 'Keep it, as if it were used now'],
    [idle, 5000, true, 'Keep it for 1 h more'],
    [preempt, 5000, false, 'A higher-priority request needs it'],
    [preempt, null, false, 'A higher-priority request needs it']
  ])('with notice %j and end %s: %s', (notice, end, can, text) => {
    expect(canExtend(lease(notice, end))).toBe(can);
    expect(extendText(lease(notice, end), 3600, trans)).toBe(text);
  });
});

describe('what is said', () => {
  it('tells why, when, and what becomes of the kernel', () => {
    expect(noticeText(sample, idle, '5 min', trans)).toBe(
      'This slice is idle. It is reclaimed in 5 min, unless it is used or extended. ' +
        'The kernel keeps running, on the CPU.'
    );
    expect(noticeText(sample, preempt, '45 s', trans)).toBe(
      'A higher-priority request needs the capacity. This slice is preempted in 45 s and cannot be extended; ' +
        'save what you need. The kernel keeps running, on the CPU.'
    );
  });

  it('promises nothing of workers', () => {
    expect(afterEndText(worker, trans)).toBe('');
  });
});

describe('how long is left', () => {
  it.each([
    [0, '5 min', '5 min'],
    [55.5, '4 min 5 s', '5 min'],
    [241, '59 s', '1 min'],
    [255, '45 s', '50 s'],
    [299, '1 s', '10 s'],
    [300, 'a moment', 'a moment']
  ])('after %d s of 300', (now, exact, rough) => {
    expect(exactTimeLeft(idle, now, trans)).toBe(exact);
    expect(roundedTimeLeft(idle, now, trans)).toBe(rough);
  });
});

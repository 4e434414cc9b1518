import * as React from 'react';
import { renderToStaticMarkup } from 'react-dom/server';

import { HealthList } from '../../panel/health';
import type { IHealthCondition } from '../../wire/types';
import { sampleSnapshot, trans } from '../fakes';

function rows(...conditions: IHealthCondition[]): string[] {
  const [device] = sampleSnapshot().host.devices;
  const page = document.createElement('div');
  page.innerHTML = renderToStaticMarkup(
    <HealthList device={{ ...device, conditions }} now={280} trans={trans} />
  );
  return Array.from(
    page.querySelectorAll('.jp-AIStack-health > li'),
    ({ className, textContent }) => `${className} ${textContent}`
  );
}

it('shows nothing of a device that is well', () => {
  expect(rows()).toEqual([]);
});

it('shows each condition with its severity, and what warnings say', () => {
  const xid: IHealthCondition = {
    code: 'XidError',
    severity: 'error',
    message: 'reported Xid 95',
    since: 100
  };
  const hot: IHealthCondition = {
    code: 'ThermalSlowdown',
    severity: 'warning',
    message: 'runs slowly',
    since: 270
  };
  expect(rows(xid, hot)).toEqual([
    'jp-mod-error error Xid error for 3 min',
    'jp-mod-warning warning Slowed down by heat for 10 sruns slowly'
  ]);
});

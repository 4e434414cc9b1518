import type { ISettingRegistry } from '@jupyterlab/settingregistry';

import { AIStackSettings } from '../../app/settings';

let kept: Record<string, unknown>;
const registry = {
  load: async () => ({
    get: (key: string) => ({ composite: kept[key] }),
    set: async (key: string, value: unknown) => {
      kept[key] = value;
    }
  })
} as unknown as ISettingRegistry;

beforeEach(() => {
  kept = { defaultSpec: '1/8' };
});

async function loaded(): Promise<AIStackSettings> {
  const settings = new AIStackSettings(registry, 'any');
  await vi.waitFor(() => expect(settings.defaultSpec).toBe('1/8'));
  return settings;
}

it('does not explain what a user may have been told, before it knows', async () => {
  const settings = new AIStackSettings(registry, 'any');
  expect(settings.explainsSuspend).toBe(false);
  await vi.waitFor(() => expect(settings.explainsSuspend).toBe(true));
});

it('keeps that it has explained', async () => {
  const settings = await loaded();
  settings.hasExplained();
  expect(settings.explainsSuspend).toBe(false);
  expect(kept.explainSuspend).toBe(false);
  expect((await loaded()).explainsSuspend).toBe(false);
});

it('explains once per page where nothing can be kept', () => {
  const settings = new AIStackSettings(null, 'any');
  expect(settings.explainsSuspend).toBe(true);
  settings.hasExplained();
  expect(settings.explainsSuspend).toBe(false);
});

it('goes by the defaults until it knows better, and then by what is set', async () => {
  kept.warnMinutes = 1;
  const settings = new AIStackSettings(registry, 'any');
  expect(settings.defaultSpec).toBe('1/4');
  expect(settings.warnSeconds).toBe(300);
  expect((await loaded()).warnSeconds).toBe(60);
  expect((await loaded()).extendSeconds).toBe(3600);
});

import type { ISettingRegistry } from '@jupyterlab/settingregistry';
import { Token } from '@lumino/coreutils';

/** What the user has set; read it when it is needed, it may change at any time. */
export interface IAIStackSettings {
  /** The size that the request dialog shows at first. */
  readonly defaultSpec: string;
  /** By how much Extend moves the end of a slice. */
  readonly extendSeconds: number;
  /** How long before the end of a slice to warn; 0 for never. */
  readonly warnSeconds: number;
  /** Whether to explain what a suspended slice is the next time that there is one. */
  readonly explainsSuspend: boolean;
  /** Saves that it has been explained. */
  hasExplained(): void;
}

export const IAIStackSettings = new Token<IAIStackSettings>(
  'jupyter-aistack:IAIStackSettings',
  'What the user has set for slices.'
);

/** The settings of the plugin `id`; the defaults until they are loaded, or for ever where there is no registry. */
export class AIStackSettings implements IAIStackSettings {
  constructor(registry: ISettingRegistry | null, id: string) {
    registry
      ?.load(id)
      .then(settings => {
        this._settings = settings;
      })
      .catch(error => console.warn(`Settings of ${id} not loaded:`, error));
    this._hasRegistry = registry !== null;
  }

  get defaultSpec(): string {
    const value = this._settings?.get('defaultSpec').composite;
    return typeof value === 'string' && value ? value : '1/4';
  }

  get extendSeconds(): number {
    return this._minutes('extendMinutes', 60) * 60;
  }

  get warnSeconds(): number {
    return this._minutes('warnMinutes', 5) * 60;
  }

  /** Not before it is known; without a registry, once per page. */
  get explainsSuspend(): boolean {
    const isKnown = this._settings !== null || !this._hasRegistry;
    const value = this._settings?.get('explainSuspend').composite;
    return isKnown && !this._hasExplained && value !== false;
  }

  hasExplained(): void {
    this._hasExplained = true;
    this._settings
      ?.set('explainSuspend', false)
      .catch(error => console.warn('Setting not saved:', error));
  }

  private _minutes(key: string, otherwise: number): number {
    const value = this._settings?.get(key).composite;
    return typeof value === 'number' ? value : otherwise;
  }

  private _hasExplained = false;
  private readonly _hasRegistry: boolean;
  private _settings: ISettingRegistry.ISettings | null = null;
}

// Light, dark, or as the system; kept in this browser.

export type Theme = 'auto' | 'light' | 'dark'
const KEPT = 'duihua.theme'

class ThemeChoice {
  theme = $state<Theme>('auto')
  constructor() {
    const kept = localStorage.getItem(KEPT)
    this.choose(kept === 'light' || kept === 'dark' ? kept : 'auto')
  }
  choose(theme: Theme) {
    this.theme = theme
    localStorage.setItem(KEPT, theme)
    if (theme === 'auto') delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = theme
  }
}

export const appearance = new ThemeChoice()

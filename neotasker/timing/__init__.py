"""What happens at its time: ticker, delays, timers of loops, virtual clocks, cron."""

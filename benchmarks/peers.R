# Time lme4 or rstanarm on one task, and print the figures as JSON.
# Rscript peers.R lmer|glmer|stan_lmer|stan_glmer TABLE.csv "FORMULA" REPEATS GROUP,GROUP
arguments <- commandArgs(trailingOnly = TRUE)
frame <- read.csv(arguments[2])
for (g in strsplit(arguments[5], ",")[[1]]) frame[[g]] <- factor(frame[[g]])
formula <- as.formula(arguments[3])
repeats <- as.integer(arguments[4])
if (arguments[1] %in% c("lmer", "glmer")) {
  suppressMessages(library(lme4))
  call <- if (arguments[1] == "lmer") function() lmer(formula, frame, REML = TRUE) else
    function() suppressWarnings(glmer(formula, frame, family = binomial))
  seconds <- sapply(seq_len(1 + repeats), function(i) {
    system.time(fit <<- call())[["elapsed"]]
  })
  cat(sprintf('{"seconds": %.6f, "log_likelihood": %.6f}\n',
              median(seconds[-1]), as.numeric(logLik(fit))))
} else {
  suppressMessages(library(rstanarm))
  call <- if (arguments[1] == "stan_lmer") stan_lmer else
    function(...) stan_glmer(..., family = binomial)
  seconds <- system.time(fit <- suppressWarnings(call(
    formula, frame, iter = 2000, warmup = 1000, chains = 4, cores = 2, seed = 1, refresh = 0
  )))[["elapsed"]]
  draws <- as.array(fit)
  kept <- grep("^b\\[|^mean_PPD|^log-posterior", dimnames(draws)[[3]], invert = TRUE)
  ess <- apply(draws[, , kept, drop = FALSE], 3, rstan::ess_bulk)
  divergences <- rstan::get_num_divergent(fit$stanfit)
  cat(sprintf('{"seconds": %.6f, "ess": %.1f, "divergences": %d}\n',
              seconds, min(ess), divergences))
}

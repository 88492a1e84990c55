# Time lme4 or rstanarm on one task, and print the figures as JSON.
# Rscript peers.R lmer|glmer|stan_lmer|stan_glmer TABLE.csv "FORMULA" REPEATS GROUP,GROUP
# Rscript peers.R columns FOLDER "FORMULA": lmer of columns in binary files, with groups `g` from 0
arguments <- commandArgs(trailingOnly = TRUE)
if (arguments[1] == "columns") {
  suppressMessages(library(lme4))
  formula <- as.formula(arguments[3])
  read <- system.time({
    frame <- list()
    for (path in list.files(arguments[2], full.names = TRUE)) {
      kind <- tools::file_ext(path)
      n <- file.size(path) / if (kind == "integer") 4 else 8
      frame[[tools::file_path_sans_ext(basename(path))]] <- readBin(path, kind, n)
    }
    groups <- as.character(seq_len(max(frame$g) + 1L) - 1L)
    frame$g <- structure(frame$g + 1L, levels = groups, class = "factor")
    frame <- structure(frame, row.names = .set_row_names(length(frame$g)), class = "data.frame")
  })[["elapsed"]]
  message(sprintf("read in %.1f s", read))
  seconds <- system.time(fit <- lmer(formula, frame, REML = TRUE))[["elapsed"]]
  cat(sprintf('{"read": %.3f, "seconds": %.3f, "log_likelihood": %.6f}\n',
              read, seconds, as.numeric(logLik(fit))))
  quit()
}
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

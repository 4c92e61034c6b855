-- `time_hour` floors the time of the observation (mostly at :51) to the hour: a row can be known up to an hour later.
SELECT origin, time_hour AS observed, time_hour + INTERVAL 1 HOUR AS published,
    temp, dewp, humid, wind_speed, wind_gust, precip, pressure, visib
FROM metar
